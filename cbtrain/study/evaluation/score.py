"""Score simulated or given sessions with all judges of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.progress import track

from cbtrain.eval.rating.cue_rater import FEW_WORDS
from cbtrain.eval.rating.judging import Earlier, judge_sessions
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.providers.provider import Provider
from cbtrain.study.evaluation.failures import refuse_if_none_ratable, refuse_if_none_rated
from cbtrain.study.evaluation.judges import Judge, Jury
from cbtrain.study.evaluation.run_context import RunContext

MOST_REASONS = 5
"""Reasons for which sessions cannot be rated that are told one by one."""


async def score_sessions(sessions: Sequence[SimulatedSession], jury: Jury, run: RunContext) -> dict[str, list[Score]]:
    """Return the scores of every session that did not fail, by each judge of ``jury`` that has to rate it, by
    instrument; a judge's scores stand together."""
    # Of sessions that an evaluation has planned; others have no key.
    held = [session for session in sessions if session.ending is not None or session.turns or not session.key]
    ratable = [session for session in held if not session.failed]
    if failures := len(held) - len(ratable):
        run.say(f"{counted(failures, 'session')} failed and cannot be rated")
    if missing := len(sessions) - len(held):
        run.say(f"{counted(missing, 'session')} did not begin, since too many failed or their course had ended")
    # Turns are those of the plan: a session that fails now and is repeated later moves no other one to another judge.
    can_be_rated = {session.id for session in ratable}
    planned = jury.shares(sessions)
    shares = {name: [session for session in share if session.id in can_be_rated] for name, share in planned.items()}
    if jury.rotation:
        counts = ", ".join(f"{name} {len(shares[name])}" for name in shares)
        run.say(f"the judges take turns (sessions: {counts})")
    by_judge = await _by_apis(shares, jury.apis, run)
    for judge in jury.judges:
        if judge.api is None:
            by_judge[judge.name] = _on_this_machine(shares[judge.name], judge, run)
    _tell_unratable([score for scores in by_judge.values() for score in scores], run)
    for judge in jury.judges:
        if judge.api is None and len(jury.judges) == 1:
            refuse_if_none_ratable(by_judge[judge.name], run, but=FEW_WORDS)  # a model without words is a result
    return {
        instrument: [score for judge in judges for score in by_judge[judge.name]]
        for instrument, judges in jury.instruments.items()
    }


def _on_this_machine(sessions: Sequence[SimulatedSession], judge: Judge, run: RunContext) -> list[Score]:
    """Return the scores of a rater that asks no API."""
    run.say(judge.label)
    scores = []
    for session in track(sessions, "score", console=run.console, disable=not run.console.is_terminal):
        run.stop.refuse_new()
        scores.append(judge.rate(session))
    return scores


async def _by_apis(
    shares: Mapping[str, Sequence[SimulatedSession]], judges: Sequence[Judge], run: RunContext
) -> dict[str, list[Score]]:
    """Return the scores of LLM judges, all of which are asked at the same time."""
    if not judges:
        return {}
    works = []
    for judge in judges:
        assert judge.api is not None
        run.say(f"{judge.label} at {judge.api.base_url}")
        works.append((judge.work(shares[judge.name]), await run.providers.open(judge.api, judge.role)))
    earlier = Earlier.of_journal(run.journal)
    for work, _ in works:
        if older := earlier.of(work)[1]:
            run.say(
                f"note: {older} ratings of {work.asking.judge} were asked for by an older version of cbtrain, in its "
                "form of transcripts, in which a turn could be forged; they are kept"
            )
    found = await judge_sessions(works, earlier, run.journal, run.display)
    scores = {judge.name: ratings for judge, ratings in zip(judges, found, strict=True)}
    for judge, (_, provider) in zip(judges, works, strict=True):
        _tell_answers(judge, provider, scores[judge.name], run)
    refuse_if_none_rated([score for ratings in scores.values() for score in ratings], run)
    return scores


def _tell_answers(judge: Judge, provider: Provider, scores: Sequence[Score], run: RunContext) -> None:
    """Say what has to be known of the answers of one judge."""
    of = f"the answers of {judge.name}" if judge.named else "the judge's answers"
    if provider.thoughts:
        whose = f"{judge.name}'s" if judge.named else "the judge's"
        thoughts, answers = f"{provider.thoughts:,}", counted(provider.answers, "answer")
        run.say(f"note: thinking was taken out of {thoughts} of {whose} {answers}")
    unfounded = sum(len(score.unfounded) for score in scores)
    if unfounded:
        rated = sum(value is not None for score in scores for value in score.domains.values())
        run.say(f"note: {unfounded:,} of {rated:,} scores in {of} rest on evidence that is not in the session")


def _tell_unratable(scores: Sequence[Score], run: RunContext) -> None:
    """Say how many sessions could not be rated, and why."""
    why = {score.session_id: score.reason.get("error", "") for score in scores if score.status == "unratable"}
    for reason, count in Counter(filter(None, why.values())).most_common(MOST_REASONS):
        run.say(f"note: {counted(count, 'session')} cannot be rated: {reason}")
