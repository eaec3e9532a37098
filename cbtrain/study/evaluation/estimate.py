"""What the rest of a study will take: calls, tokens, dollars and hours by role, and what its design can detect.

Lengths are those of sessions that the run has held, else those of the corpus. Figures are for planning: a model that
talks more, or stops earlier, than these sessions changes them in proportion.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich.markup import escape
from rich.table import Table

from cbtrain.config.schema import StudyConfig
from cbtrain.console import table_of
from cbtrain.errors import UserError
from cbtrain.eval.analysis.power.pilot import Spread
from cbtrain.eval.analysis.power.power import detectable_difference, power_of
from cbtrain.eval.rating.judging import Earlier, missing_ratings
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.after_session import Answers
from cbtrain.eval.simulation.questionnaire import Questionnaire
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.costs.prices import load_prices
from cbtrain.providers.providers import price_of
from cbtrain.providers.types import Usage
from cbtrain.study.corpus import StudyCorpus
from cbtrain.study.evaluation.judges import Judge
from cbtrain.study.evaluation.protocol import EvaluationProtocol
from cbtrain.study.evaluation.run_context import RunContext
from cbtrain.text.words import count_words
from cbtrain.transcripts.types import FAILED

TOKENS_PER_WORD = 4 / 3
API_WAIT_S, API_TOKENS_PER_S = 1.0, 50.0
"""What a call to an API is taken to last: the wait for its first token, and the rate of the others."""

TOKENS_PER_SCORE = 90
"""Of a judge's answer: score, evidence and reason of one domain."""

TOKENS_OF_FORM = 24
"""Of the JSON around the words of two turns, as a judge reads them."""

POINTS_2024, BETWEEN_2024, WITHIN_2024 = 99.0, 2.4, 10.4
"""The 2024 study's scale (11 to 110), and on it the SD between patients of the true difference of tuned and untuned arm
and the SD of sessions of one patient with one arm, as its published scores give them."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """What sessions are like: turns of one, tokens of a turn of each role; ``source`` says where that is from."""

    turns: float
    patient: float
    therapist: float
    source: str


@dataclass(frozen=True, slots=True)
class RoleEstimate:
    """What one role takes. ``dollars`` are None if the price is not known; ``hours`` None if nothing is known of the
    speed."""

    role: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None
    hours: float | None


ASSUMED_PATIENT, ASSUMED_THERAPIST = 60.0, 150.0
"""Tokens of a turn, where neither sessions nor a corpus tell."""


def lengths_of(
    events: Sequence[Mapping[str, Any]], corpus: StudyCorpus | None, protocol: EvaluationProtocol
) -> Lengths:
    """Return the lengths of sessions in a journal's ``events``, if any has ended, else of the patients' sessions in the
    ``corpus``, if there is one, as far as the limits of the settings allow."""
    settings = protocol.config.evaluation
    turns: dict[str, int] = defaultdict(int)
    tokens: dict[str, list[float]] = {"patient": [], "therapist": []}
    ended = {
        event["session"] for event in events if event["kind"] == "session_finished" and event["ending"] not in FAILED
    }
    for event in events:
        if event["kind"] == "turn" and event["session"] in ended:
            turns[event["session"]] += 1
            drawn = event.get("facts", {}).get("completion_tokens")
            tokens[event["role"]].append(drawn or count_words(event["text"]) * TOKENS_PER_WORD)
    source = f"{len(turns)} sessions that this run has held"
    known = tokens["patient"] and tokens["therapist"]
    if not known and corpus is None:
        turns = {"": settings.max_turns}
        tokens = {"patient": [ASSUMED_PATIENT], "therapist": [ASSUMED_THERAPIST]}
        source = "assumptions: sessions of full length, as nothing is known before the first"
    elif not known and corpus is not None:
        sessions = [session for course in corpus.split.test for session in course.sessions]
        turns = {session.id: len(session.turns) for session in sessions}
        for session in sessions:
            for turn in session.turns:
                tokens[turn.role].append(count_words(turn.text) * TOKENS_PER_WORD)
        source = f"{len(sessions)} sessions of the corpus"
    return Lengths(
        min(fmean(turns.values()), settings.max_turns),
        min(fmean(tokens["patient"] or [0]), settings.patient.max_tokens),
        min(fmean(tokens["therapist"] or [0]), settings.therapist.max_tokens),
        source,
    )


def estimate(
    protocol: EvaluationProtocol,
    sessions: Sequence[SimulatedSession],
    lengths: Lengths,
    events: Sequence[Mapping[str, Any]],
) -> list[RoleEstimate]:
    """Return what is left to do of ``sessions``, by role and model, after ``events`` of the journal; what is on this
    machine has no price."""
    config = protocol.config
    left = [session for session in sessions if session.ending is None]
    rows = [
        _patient(protocol, name, [session for session in left if session.simulator == name], lengths)
        for name in protocol.players
    ]
    rows += [
        _therapist(protocol, name, [session for session in left if session.arm == name], lengths)
        for name in protocol.arms
    ]
    rows += _summaries(protocol, sessions, lengths)
    if protocol.questionnaire is not None:
        answers = Answers(protocol.questionnaire, config.evaluation.patient.max_tokens)
        answers.restore(sessions, events)
        unasked = [one for one in sessions if one.ending is None or (not one.failed and answers.lacks(one))]
        rows += [_questionnaire(protocol, protocol.questionnaire, name, unasked, lengths) for name in protocol.players]
    earlier, shares = Earlier.read(events), protocol.jury.shares(sessions)
    rows += [_judge(protocol, judge, shares[judge.name], earlier, lengths) for judge in protocol.jury.apis]
    return [row for row in rows if row.calls]


def _patient(
    protocol: EvaluationProtocol, name: str, left: Sequence[SimulatedSession], lengths: Lengths
) -> RoleEstimate:
    """Return what the patients take that the simulator ``name`` plays."""
    provider = protocol.players[name].provider
    role = " ".join(filter(None, ["patient", name]))
    prompts = [protocol.patient_prompt(session) for session in left] or [""]
    who = role, provider.model if provider else "on this machine", provider
    return _speaker(protocol, who, left, lengths, lengths.patient, fmean(map(count_words, prompts)))


def _therapist(
    protocol: EvaluationProtocol, name: str, left: Sequence[SimulatedSession], lengths: Lengths
) -> RoleEstimate:
    therapist = next(therapist for therapist in protocol.therapists if therapist.name == name)
    prompts = [protocol.therapist_prompt(therapist, session) for session in left] or [""]
    model = name if therapist.provider is None else f"{name} ({therapist.provider.model})"
    spoken = min(lengths.therapist, therapist.sampling.max_tokens)
    who = "therapist", model, therapist.provider
    return _speaker(protocol, who, left, lengths, spoken, fmean(map(count_words, prompts)))


def _speaker(
    protocol: EvaluationProtocol,
    who: tuple[str, str, ProviderConfig | None],
    left: Sequence[SimulatedSession],
    lengths: Lengths,
    spoken: float,
    words_of_prompt: float,
) -> RoleEstimate:
    """Return what one speaker takes: role, model and API. It speaks every second turn, and reads all turns before."""
    role, model, provider = who
    calls = lengths.turns / 2
    read = calls * words_of_prompt * TOKENS_PER_WORD
    read += (lengths.patient + lengths.therapist) * calls * (calls - 1) / 2
    read += calls * lengths.patient if role == "therapist" else 0
    turns_left = sum(max(lengths.turns - len(session.turns), 0) for session in left)
    sessions = turns_left / max(lengths.turns, 1)
    return _row(protocol, role, model, provider, sessions * calls, sessions * read, sessions * calls * spoken)


def _summaries(
    protocol: EvaluationProtocol, sessions: Sequence[SimulatedSession], lengths: Lengths
) -> list[RoleEstimate]:
    """Return what the summaries between the sessions of whole courses take: of the API that writes them, else of each
    therapist."""
    if protocol.course.mode != "whole":
        return []
    summary, last = protocol.config.evaluation.course.summary, max(protocol.course.numbers)
    lacking = [session for session in sessions if not session.summary and session.number < last]
    dialogue = lengths.turns / 2 * (lengths.patient + lengths.therapist) + summary.max_tokens

    def row(model: str, provider: ProviderConfig | None, calls: int) -> RoleEstimate:
        return _row(protocol, "summaries", model, provider, calls, calls * dialogue, calls * summary.max_tokens / 2)

    if summary.provider is not None:
        return [row(summary.provider.model, summary.provider, len(lacking))]
    by_arm = Counter(session.arm for session in lacking)
    return [row(therapist.name, therapist.provider, by_arm[therapist.name]) for therapist in protocol.therapists]


def _questionnaire(
    protocol: EvaluationProtocol,
    questionnaire: Questionnaire,
    name: str,
    unasked: Sequence[SimulatedSession],
    lengths: Lengths,
) -> RoleEstimate:
    """Return what the patients that the simulator ``name`` plays take to fill in ``questionnaire`` after each of
    ``unasked``, a call each."""
    provider = protocol.players[name].provider
    asked = [session for session in unasked if session.simulator == name]
    prompts = [count_words(protocol.patient_prompt(session)) for session in asked]
    words = fmean(prompts or [0]) + count_words(questionnaire.question.text)
    read = words * TOKENS_PER_WORD + lengths.turns / 2 * (lengths.patient + lengths.therapist)
    model = provider.model if provider else "on this machine"
    written = len(asked) * questionnaire.question.tokens / 2  # own words seldom need all the room there is
    role = " ".join(filter(None, ["patient", name, "(questionnaire)"]))
    return _row(protocol, role, model, provider, len(asked), len(asked) * read, written)


def _judge(
    protocol: EvaluationProtocol,
    judge: Judge,
    sessions: Sequence[SimulatedSession],
    earlier: Earlier,
    lengths: Lengths,
) -> RoleEstimate:
    """Return what ``judge`` takes for its ``sessions``: for those that are held the ratings that are missing, for the
    others all."""
    asking, rubric = judge.asking, judge.rubric
    assert judge.api is not None
    held = [session for session in sessions if session.ending is not None and not session.failed]
    ratings = missing_ratings(judge.work(held), earlier)
    ratings += sum(session.ending is None for session in sessions) * asking.config.repeats
    calls = ratings * len(asking.calls)
    prompts = [asking.prompt.messages(rubric, domains, "") for domains in asking.calls]
    words = fmean(sum(count_words(message.content) for message in messages) for messages in prompts)
    dialogue = lengths.turns / 2 * (lengths.patient + lengths.therapist + TOKENS_OF_FORM)
    answer = min(TOKENS_PER_SCORE * len(rubric.domains) / len(asking.calls), asking.config.max_tokens)
    read = calls * (words * TOKENS_PER_WORD + dialogue)
    return _row(protocol, judge.role, judge.api.model, judge.api, calls, read, calls * answer)


def _row(
    protocol: EvaluationProtocol,
    role: str,
    model: str,
    provider: ProviderConfig | None,
    calls: float,
    read: float,
    written: float,
) -> RoleEstimate:
    config = protocol.config
    dollars: float | None = 0.0
    hours = None
    if provider is not None:
        price = price_of(provider, load_prices(config.providers.prices)) if provider.paid else None
        if provider.paid and price is None:
            dollars = None
        elif price is not None:
            dollars = price.cost(Usage(round(read), round(written)))
        side_by_side = min(provider.max_in_flight, config.evaluation.sessions_in_flight)
        hours = (calls * API_WAIT_S + written / API_TOKENS_PER_S) / side_by_side / 3600
    return RoleEstimate(role, model, round(calls), round(read), round(written), dollars, hours)


def refuse_small_budget(rows: Sequence[RoleEstimate], run: RunContext) -> None:
    """Raise UserError if less than half of what the rest of the study is expected to cost is left of the budget; say so
    if it is less than all."""
    budget, expected = run.providers.budget, sum(row.dollars or 0.0 for row in rows)
    if budget.cap is None or expected <= (left := max(budget.cap - budget.spent, 0.0)):
        return
    what = f"what is left of the study may cost ${expected:.2f}, and ${left:.2f} of the budget is left"
    if left < expected / 2:
        enough = budget.spent + 1.2 * expected
        hint = f"Raise it to some ${enough:.2f}, or plan fewer sessions (evaluation.seeds, evaluation.max_patients)."
        raise UserError(what, where="providers.budget", hint=hint)
    run.say(f"note: {what}")


def estimate_table(rows: Sequence[RoleEstimate]) -> Table:
    """Return ``rows`` as a table."""
    table = table_of("role", "model", "calls", "tokens read", "written", "dollars", "hours", numbers=5)
    for row in rows:
        dollars = "?" if row.dollars is None else f"{row.dollars:,.2f}" if row.dollars else "–"
        hours = "?" if row.hours is None else f"{row.hours:,.1f}" if row.hours >= 0.1 else "< 0.1"
        counts = (f"{row.calls:,}", f"{row.prompt_tokens:,}", f"{row.completion_tokens:,}")
        table.add_row(row.role, escape(row.model), *counts, dollars, hours)
    return table


def estimate_notes(rows: Sequence[RoleEstimate], lengths: Lengths, config: StudyConfig) -> list[str]:
    """Return what a reader has to know of ``rows``: their basis, their sum, what is not in them."""
    notes = [
        f"lengths are those of {lengths.source}: {lengths.turns:.0f} turns a session, {lengths.patient:.0f} tokens a "
        f"patient's turn, {lengths.therapist:.0f} a therapist's"
    ]
    dollars = sum(row.dollars or 0.0 for row in rows)
    budget = config.providers.budget
    if dollars:
        notes.append(f"together ${dollars:,.2f}" + (f" of a budget of ${budget:,.2f}" if budget is not None else ""))
    if any(row.dollars is None for row in rows):
        notes.append("?: no price is known (give the provider a price)")
    if any(row.hours is not None for row in rows):
        notes.append(
            f"hours of APIs: {API_WAIT_S:g} s and {API_TOKENS_PER_S:g} tokens/s a call, "
            f"{config.evaluation.sessions_in_flight} sessions at once (evaluation.sessions_in_flight)"
        )
    if any(row.hours is None for row in rows):
        notes.append("?: the speed of models on this machine is not known before they run")
    return notes


def spread_2024(rubric: Rubric) -> Spread:
    """Return the 2024 study's spread of totals, on the range of totals of ``rubric``."""
    low, high = rubric.total_range
    share = (high - low) / POINTS_2024
    return Spread(between=BETWEEN_2024 * share, within=WITHIN_2024 * share, repeat=None)


def detectable(protocol: EvaluationProtocol, effect: float | None) -> str:
    """Return a sentence on the differences of totals that this design shows, and on its power for ``effect``."""
    patients = len(protocol.patients)
    each = protocol.config.evaluation.seeds * len(protocol.course.numbers) * len(protocol.players)
    if patients < 2:
        return "power: one patient allows no test; differences are described only"
    rubric = protocol.rubric
    spread = spread_2024(rubric)
    sd, basis = spread.variance(each, 1) ** 0.5, "one contrast, α 0.05; spread of the 2024 study on this scale"
    smallest = detectable_difference(patients, sd)
    design = f"power: {counted(patients, 'patient')} with {counted(each, 'session')} each"
    text = f"{design} show a difference of {smallest:.3g} points of the total or more in 80 % of studies ({basis})"
    low, high = rubric.total_range
    if smallest > high - low:
        text = f"{design} show no difference that this scale has in 80 % of studies ({basis})"
    if effect is not None:
        text += f"; one of {effect:g} points in {100 * power_of(patients, effect, sd):.0f} %"
    return text
