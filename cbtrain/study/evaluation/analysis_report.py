"""Build the report of ``cbtrain analyze`` and ``cbtrain compare`` from existing scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from cbtrain.eval.analysis.agreement.panel import Panel, panel_of
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.rating.keying import AS_GIVEN, Keying
from cbtrain.eval.rating.scores import Score, Status
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.report.schema.report import Report
from cbtrain.eval.report.schema.training import Rater
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.simulation.slots import seed_in
from cbtrain.study.evaluation.compare import Comparison, run_arm
from cbtrain.study.evaluation.report_data import ReportInput, build_report, without_secondary
from cbtrain.study.evaluation.scores import ScoredStudy, audit_of, human_scores, patients_audit_of, records
from cbtrain.study.run_files import REPORT
from cbtrain.study.session_log.report_turns import with_requests

RatingKey = tuple[str, str, int]
"""Session id, judge and repeat."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Evidence (indices of turns) and reasons of one rating, by domain."""

    evidence: dict[str, list[int]] = field(default_factory=dict)
    reason: dict[str, str] = field(default_factory=dict)


def report_of(study: ScoredStudy, results: Mapping[str, Any]) -> Report:
    """Return the report on ``study`` with the analysis ``results``. If the scores are those of a run, what its own
    report says of training, costs and protocol is kept. Raises UserError if that report cannot be read."""
    base_report = _report_of_run(study.run)
    keying = study.rubric.keying if study.rubric else AS_GIVEN
    explanations = _explanations(study.run, base_report, keying)
    scores, sessions = _scores_and_sessions(study.ratings, list(records(study.transcripts)), explanations, keying)
    data = ReportInput(
        ratings=study.ratings,
        scores=scores,
        primary_judges=study.primary_judges,
        results=results,
        sessions=sessions,
        patient_names=_patient_names(base_report),
        rubric=study.rubric,
        rater=_rater(base_report, panel_of(study.ratings, study.primary_judges, rotating=study.rotating)),
        answers={session.id: session.answers for session in base_report.sessions if session.answers},
        rotating=study.rotating,
    )
    title = base_report.title or f"Scores of {counted(len(set(study.ratings.patient)), 'patient')}, analysed"
    if study.run is None:
        return build_report(data, Report(title=title))
    deviations = base_report.deviations
    if deviations is not None and study.only_judge:
        deviations = [*deviations, f"analysed by ratings of {study.only_judge} only"]
    audit = None if study.only_judge else audit_of(study.run)
    parts: dict[str, Any] = {"title": title, "audit": audit, "deviations": deviations}
    parts["patients_audit"] = patients_audit_of(study.run)
    return with_requests(build_report(data, base_report.updated(Report.model_validate(parts))), study.run)


def report_of_runs(comparison: Comparison, results: Mapping[str, Any]) -> Report:
    """Return the report on several runs of one protocol. Raises UserError if the report of one cannot be read."""
    transcripts: list[SimulatedSession] = []
    patient_names: dict[str, str] = {}
    explanations: dict[RatingKey, Explanation] = {}
    rubric = comparison.runs[0].rubric
    keying = rubric.keying if rubric else AS_GIVEN
    for name, run in zip(comparison.names, comparison.runs, strict=True):
        run_report = _report_of_run(run.run)
        transcripts += [
            replace(session, id=f"{name}: {session.id}", arm=run_arm(name, session.arm))
            for session in records(run.transcripts)
        ]
        for (session_id, judge, repeat), explanation in _explanations(run.run, run_report, keying).items():
            explanations[f"{name}: {session_id}", judge, repeat] = explanation
        patient_names |= _patient_names(run_report)
    scores, sessions = _scores_and_sessions(comparison.ratings, transcripts, explanations, keying)
    data = ReportInput(
        ratings=comparison.ratings,
        scores=scores,
        primary_judges=comparison.primary_judges,
        results=results,
        sessions=sessions,
        patient_names=patient_names,
        rubric=rubric,
        rotating=comparison.rotating,
    )
    title = f"{' and '.join(comparison.names)}, compared"
    return build_report(data, Report(title=title, protocol=comparison.protocol))


def _scores_and_sessions(
    ratings: Ratings,
    sessions: Sequence[SimulatedSession],
    explanations: Mapping[RatingKey, Explanation],
    keying: Keying = AS_GIVEN,
) -> tuple[list[Score], list[SimulatedSession]]:
    """Return ``ratings`` as scores, as their raters gave them, and the ``sessions`` of their arms. A rated session is
    listed also if there is no transcript of it."""
    sessions = [session for session in sessions if session.arm in ratings.arms]
    ids = {(session.arm, session.patient, session.slot): session.id for session in sessions}
    scores = [_score(ratings, row, ids, explanations, keying) for row in range(len(ratings))]
    without_transcript = {
        score.session_id: _session_of(score) for score in scores if (score.arm, score.patient, score.slot) not in ids
    }
    return scores, [*sessions, *without_transcript.values()]


def _session_of(score: Score) -> SimulatedSession:
    """Return what ``score`` says of its session."""
    place: dict[str, Any] = {"number": score.number, "simulator": score.simulator, "columns": dict(score.columns)}
    return SimulatedSession(score.session_id, score.arm, score.patient, score.seed, **place)


def _score(
    ratings: Ratings,
    row: int,
    ids: Mapping[tuple[str, str, int], str],
    explanations: Mapping[RatingKey, Explanation],
    keying: Keying,
) -> Score:
    """Return one row of ``ratings`` with its evidence and reasons; ``ids``: of the sessions with a transcript. Items
    that ``keying`` has turned round are turned back."""
    arm, patient, slot = str(ratings.arm[row]), str(ratings.patient[row]), int(ratings.session[row])
    number, simulator = int(ratings.number[row]), str(ratings.simulator[row])
    seed = seed_in(slot, number, simulator)
    session_id = ids.get((arm, patient, slot)) or ratings.session_id(row)
    judge, repeat = str(ratings.judge[row]), int(ratings.repeat[row])
    points = zip(ratings.item_names, map(float, ratings.items[row]), strict=True)
    # Turning a reversed score round twice gives it back.
    domains = {item: None if math.isnan(value) else keying.keyed(item, value) for item, value in points}
    explanation = explanations.get((session_id, judge, repeat), Explanation())
    status = cast(Status, str(ratings.status[row]))
    return Score(
        session_id=session_id,
        arm=arm,
        patient=patient,
        seed=seed,
        judge=judge,
        repeat=repeat,
        status=status,
        domains=domains,
        evidence=explanation.evidence,
        reason=explanation.reason,
        number=number,
        simulator=simulator,
        columns={name: values[patient] for name, values in ratings.moderators.items() if patient in values},
        keying=keying,
    )


def _rater(report: Report, panel: Panel) -> Rater | None:
    """Return the rater that ``report`` names, which knows more than tables of scores do; None if the primary judges are
    others now."""
    if report.rater.judge != ", ".join(panel.judges):
        return None
    return report.rater.model_copy(update={"label": without_secondary(report.rater.label)})


def _report_of_run(folder: Path | None) -> Report:
    """Return the report in ``folder``, or an empty one if there is none. Raises UserError if it cannot be read."""
    path = folder / REPORT if folder else None
    return Report.read(path) if path and path.is_file() else Report()


def _patient_names(report: Report) -> dict[str, str]:
    return {session.patient: session.patient_name for session in report.sessions if session.patient_name}


def _explanations(folder: Path | None, report: Report, keying: Keying) -> dict[RatingKey, Explanation]:
    """Return the evidence and reasons in ``report``, and those of people who rated the run in ``folder``."""
    explanations = {
        (session.id, rating.judge, rating.repeat or 0): Explanation(rating.evidence, rating.reason)
        for session in report.sessions
        for rating in session.ratings
    }
    for score in human_scores(folder, keying=keying) if folder else ():
        key = (score.session_id, score.judge, score.repeat)
        explanations[key] = Explanation(score.evidence, score.reason)
    return explanations
