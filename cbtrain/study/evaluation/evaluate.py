"""The evaluation half of a study, in order: perplexity, simulated sessions, scores, analysis, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cbtrain.config.loading import dump_config
from cbtrain.config.schema import StudyConfig
from cbtrain.console import heading, loading_bar, plain, say
from cbtrain.environment import describe_environment, peak_memory_gb
from cbtrain.eval.analysis.agreement.panel import panel_of
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.questionnaires import questionnaire_analysis
from cbtrain.eval.analysis.ratings import Ratings, ratings_of
from cbtrain.eval.analysis.sessions import Key, SessionOutcome, session_outcomes
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.report.schema.analysis import Analysis
from cbtrain.eval.report.schema.report import Report, ReportInstrument
from cbtrain.eval.report.schema.training import Rater
from cbtrain.eval.report.terminal import summary
from cbtrain.eval.report.write import write_report
from cbtrain.eval.simulation.after_session import Answers, AskPatients
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.files import write_atomic
from cbtrain.journal import read
from cbtrain.providers.summary import costs
from cbtrain.study.anchored import anchored
from cbtrain.study.corpus import StudyCorpus
from cbtrain.study.evaluation.estimate import (
    detectable,
    estimate,
    estimate_notes,
    estimate_table,
    lengths_of,
    refuse_small_budget,
)
from cbtrain.study.evaluation.failures import refuse_if_all_failed, refuse_many_failures
from cbtrain.study.evaluation.judges import Judge
from cbtrain.study.evaluation.plan import write_plan
from cbtrain.study.evaluation.protocol import EvaluationProtocol, deviations
from cbtrain.study.evaluation.questionnaires import (
    answers_in_report,
    answers_of,
    tell_missing,
    write_questionnaires_csv,
)
from cbtrain.study.evaluation.report_data import ReportInput, build_report, describe_scale, title_of
from cbtrain.study.evaluation.resume import match, refuse_stale, resume
from cbtrain.study.evaluation.run_context import SHAPES, RunContext, open_run
from cbtrain.study.evaluation.score import score_sessions
from cbtrain.study.evaluation.score_tables import write_tables
from cbtrain.study.evaluation.scores import as_transcripts, audit_of, human_scores, patients_audit_of
from cbtrain.study.evaluation.simulate import LocalGroup, Simulation, devices, groups_of, load, sessions_of
from cbtrain.study.evaluation.study import EvaluationStudy, open_study
from cbtrain.study.evaluation.therapists import TUNED
from cbtrain.study.run_files import CONFIG, EVENTS, QUESTIONNAIRES, TRANSCRIPTS
from cbtrain.study.session_log.report_turns import with_requests
from cbtrain.study.trained_run import TrainedRun
from cbtrain.transcripts.writing import write_sessions

if TYPE_CHECKING:
    from cbtrain.generation.local_model import LocalModel


async def evaluate_study(
    config: StudyConfig, folder: Path, console: Console, *, allow_upload: bool = False, hold_again: bool = False
) -> Path:
    """Evaluate the therapists that ``config`` names, or those of the trained run in ``folder``, and write everything to
    ``folder``; return the path of ``report.html``. ``allow_upload``: the user has agreed that text from an imported
    corpus may be sent to APIs. ``hold_again``: sessions that were held under other settings are held again.

    Finished sessions in ``folder/events.jsonl`` are kept, unfinished ones continue. Raises UserError on everything that
    would stop the study, before it begins; and, once everything is written, if more sessions failed than
    ``evaluation.max_failures`` allows.
    """
    started = time.perf_counter()
    study = open_study(config, folder, console, allow_upload=allow_upload)
    protocol, trained = study.protocol, study.trained
    sessions, groups = sessions_of(protocol), groups_of(protocol)
    steps = iter(("5/7", "6/7", "7/7") if trained else ("1/3", "2/3", "3/3"))
    heading(console, next(steps), "Simulate sessions with held-out patients" if trained else "Simulate sessions")
    say(console, describe(protocol, sessions))
    perplexity = None
    if trained is not None:
        groups[0].loaded = model = _load_with_bar(groups[0], protocol, console)
        assert study.corpus is not None
        perplexity = _measure_perplexity(model, study.corpus, config, trained, console)
        say(console, perplexity["verdict"])
        del model
    async with open_run(config, folder, console) as run:
        restored = match(sessions, protocol, run.events, folder)
        refuse_stale(restored, run, hold_again=hold_again)
        rows = estimate(protocol, sessions, lengths_of(run.events, study.corpus, protocol), run.events)
        study.treated.write(folder)
        refuse_small_budget(rows, run)
        if trained is None:
            write_atomic(folder / CONFIG, dump_config(anchored(config)))
        write_plan(protocol, run)
        resume(restored, sessions, run)
        answers = answers_of(protocol, sessions, run)
        after = [AskPatients(answers, run.journal, config.seed)] if answers else []
        await Simulation(protocol, sessions, run, groups, after).hold()
        write_sessions(as_transcripts(sessions), [], folder / TRANSCRIPTS)
        if answers:
            write_questionnaires_csv(answers, sessions, folder / QUESTIONNAIRES)
            tell_missing(answers, sessions, run)
        refuse_if_all_failed(sessions, run)

        heading(console, next(steps), "Score the sessions")
        by_instrument = await score_sessions(sessions, protocol.jury, run)
        spent = costs(run.providers)
    write_tables(protocol.jury, by_instrument, folder)

    heading(console, next(steps), "Report")
    report = _report(study, sessions, by_instrument, run, answers)
    measured = {
        "costs": spent,
        "perplexity": perplexity,
        "seconds": round((trained.seconds if trained else 0.0) + time.perf_counter() - started, 1),
        "peak_memory_gb": round(peak_memory_gb(), 2),
    }
    report = report.updated(Report.model_validate(measured))
    with console.status("Drawing figures, writing the report"):
        path = write_report(report, folder)
    console.print(summary(report))
    plain(console, f"\nreport: {path}")
    refuse_many_failures(sessions, [score for scores in by_instrument.values() for score in scores], run)
    return path


def plan_study(
    config: StudyConfig, folder: Path, console: Console, *, allow_upload: bool = False, effect: float | None = None
) -> None:
    """Print what :func:`evaluate_study` would still do: calls, tokens, dollars and hours by role, and what the design
    can detect (its power for ``effect`` points). Nothing is asked and nothing written. Raises UserError as it does."""
    study = open_study(config, folder, console, allow_upload=allow_upload)
    protocol, sessions = study.protocol, sessions_of(study.protocol)
    journal = folder / EVENTS
    events = list(read(journal, SHAPES)) if journal.exists() else []
    restored = match(sessions, protocol, events, folder)
    plain(console, describe(protocol, sessions))
    if any(session.turns for session in sessions):
        ended = sum(session.ending is not None for session in sessions)
        plain(console, f"{ended} of {counted(len(sessions), 'session')} are finished")
    if restored.stale:
        plain(console, f"held under other settings: {restored.told}")
    lengths = lengths_of(events, study.corpus, protocol)
    rows = estimate(protocol, sessions, lengths, events)
    console.print(estimate_table(rows))
    for line in (*estimate_notes(rows, lengths, config), detectable(protocol, effect)):
        plain(console, line)


def describe(protocol: EvaluationProtocol, sessions: Sequence[SimulatedSession]) -> str:
    """Return what is held: ``3 therapists × 2 patients × 2 seeds = 12 sessions; 5 contrasts planned``."""
    arms, patients = counted(len(protocol.therapists), "therapist"), counted(len(protocol.patients), "patient")
    seeds, contrasts = counted(protocol.config.evaluation.seeds, "seed"), len(protocol.compare_key["contrasts"])
    factors = [arms, patients, seeds]
    factors += [f"{len(protocol.course.numbers)} sessions"] if protocol.course.numbers[1:] else []
    factors += [counted(len(protocol.players), "simulator")] if len(protocol.players) > 1 else []
    product = f"{' × '.join(factors)} = {counted(len(sessions), 'session')}"
    return f"{product}; {counted(contrasts, 'contrast')} planned"


def _load_with_bar(group: LocalGroup, protocol: EvaluationProtocol, console: Console) -> LocalModel:
    config, player = protocol.config, protocol.patient_weights
    with loading_bar(console) as progress:
        adapters = group.adapters(player.adapter if player else None)
        device = devices(config.model.device)[0]
        return load(group.model, adapters, config, device, partial(say, console), progress)


def _measure_perplexity(
    model: LocalModel, corpus: StudyCorpus, config: StudyConfig, trained: TrainedRun, console: Console
) -> dict[str, Any]:
    """Return the perplexity of base and tuned therapist on held-out patients' sessions."""
    from cbtrain.eval.rating.perplexity import compare_perplexity
    from cbtrain.study.datasets import held_out_datasets
    from cbtrain.tokens.plain_text import plain_document

    renderer = model.voices[TUNED].renderer
    positions = model.decoder.architecture.context
    datasets = held_out_datasets(corpus, renderer, config, positions, console)
    documents = {patient: dataset.documents for patient, dataset in datasets.items()}
    plain_text = None
    if trained.is_tiny:  # it has read plain text only: part of what tuning adds is the chat layout
        tokenizer = renderer.tokenizer
        plain_text = {
            patient: [plain_document(s, tokenizer, "therapist") for unit in dataset.units for s in unit.sessions]
            for patient, dataset in datasets.items()
        }
    pack_tokens = config.therapist.pack_tokens
    tuned = partial(model.adapters.rows, [(TUNED, -1)])
    return compare_perplexity(model.decoder, tuned, documents, corpus.names(), pack_tokens, console, plain_text)


def _report(
    study: EvaluationStudy,
    sessions: Sequence[SimulatedSession],
    by_instrument: Mapping[str, Sequence[Score]],
    run: RunContext,
    answers: Answers | None,
) -> Report:
    """Analyse the scores; return the report with everything that is known of training and evaluation."""
    config, protocol, trained = run.config, study.protocol, study.trained
    jury = protocol.jury
    first, *others = [
        _Rated.of(protocol, instrument, scores, sessions, run.folder) for instrument, scores in by_instrument.items()
    ]
    title = title_of(trained) if trained else f"{counted(len(protocol.arms), 'therapist')} with simulated patients"
    with run.console.status("Comparing the therapists"):
        outcomes = session_outcomes(as_transcripts(sessions))
        results = first.analysis(outcomes, config.seed)
        instruments = [one.described(outcomes, config.seed) for one in others]
        asked = questionnaire_analysis(answers, sessions, protocol.arms, seed=config.seed) if answers else None
    parts = {
        "title": title,
        "corpus": trained.corpus if trained else study.treated.summary(study.corpus),
        "training": trained.training if trained else [],
        "instruments": instruments,
        "audit": audit_of(run.folder),
        "questionnaire": asked,
        "patients_audit": patients_audit_of(run.folder),
        "protocol": protocol.plan,
        "deviations": deviations(protocol.plan, run.events),
        "prompts": _prompts(protocol),
        "config": config.model_dump(mode="json"),
        "environment": describe_environment(),
    }
    panel = panel_of(first.ratings, first.primary_judges, rotating=first.rotating)
    data = ReportInput(
        ratings=first.ratings,
        scores=first.scores,
        primary_judges=first.primary_judges,
        rotating=first.rotating,
        results=results,
        sessions=sessions,
        patient_names=study.treated.names,
        rubric=protocol.rubric,
        rater=Rater.model_validate(jury.rater(panel.judges)),
        answers=answers_in_report(answers, sessions) if answers else {},
    )
    return with_requests(build_report(data, Report.model_validate(parts)), run.folder)


@dataclass(frozen=True)
class _Rated:
    """What was rated by one instrument."""

    judges: Sequence[Judge]
    ratings: Ratings
    scores: Sequence[Score]
    primary_judges: Sequence[str]
    rotating: bool

    @classmethod
    def of(
        cls,
        protocol: EvaluationProtocol,
        instrument: str,
        scores: Sequence[Score],
        sessions: Sequence[SimulatedSession],
        folder: Path,
    ) -> _Rated:
        """Return ``scores`` by ``instrument`` with those of people in ``folder``."""
        jury, by_id = protocol.jury, {session.id: session for session in sessions}
        judges = jury.instruments[instrument]
        rubric = judges[0].rubric
        by_people = human_scores(folder, "" if instrument == jury.first.instrument else instrument, rubric.keying)
        placed = [score.placed_as(by_id[score.session_id]) for score in by_people if score.session_id in by_id]
        scores = [*scores, *placed]
        ratings = replace(ratings_of(scores, rubric.ids, protocol.arms, rubric), arms=protocol.arms)
        return cls(judges, ratings, scores, jury.primary_of(instrument), jury.rotates(instrument))

    def analysis(self, outcomes: Mapping[Key, SessionOutcome], seed: int) -> dict[str, Any]:
        return analysis(
            self.ratings,
            "default",
            outcomes,
            primary_judges=self.primary_judges,
            rotating=self.rotating,
            seed=seed,
        )

    def described(self, outcomes: Mapping[Key, SessionOutcome], seed: int) -> ReportInstrument:
        """Return what the report says of an instrument that is not the primary one."""
        rubric = self.judges[0].rubric
        return ReportInstrument(
            id=self.judges[0].instrument,
            scale=describe_scale(self.ratings, rubric),
            judges="; ".join(judge.label for judge in self.judges),
            analysis=Analysis.model_validate(self.analysis(outcomes, seed)),
        )


def _prompts(protocol: EvaluationProtocol) -> dict[str, str]:
    """Return the prompt of each model, word for word; of therapists one, if all have the same."""
    by_therapist = {therapist.name: therapist.system for therapist in protocol.therapists}
    same = len(set(by_therapist.values())) == 1
    prompts = {"therapist": protocol.therapists[0].system} if same else by_therapist
    for name, player in protocol.players.items():
        template = player.simulator.template if player.simulator else player.instructions
        prompts[" ".join(filter(None, ["patient", name]))] = template or ""
    if protocol.course.mode == "whole":
        prompts["summaries"] = protocol.config.evaluation.course.summary.prompt
    for judge in protocol.jury.apis:
        messages = judge.asking.prompt.messages(judge.rubric, judge.rubric.domains, "(the transcript)")
        prompts[judge.role] = "\n\n".join(message.content for message in messages)
    return {name: text for name, text in prompts.items() if text}
