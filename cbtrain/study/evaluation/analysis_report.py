"""A report on scores that exist already: of a run, of tables alone, of several runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cbtrain
from cbtrain.environment import now
from cbtrain.eval.analysis.agreement.panel import Panel, panel_of, panel_ratings
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.rating.cue_rater import CUE_RATER, CUE_RATER_LABEL
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score, Status
from cbtrain.eval.report import SCHEMA
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.evaluation.compare import Comparison, run_arm
from cbtrain.study.evaluation.report_data import describe_arms, describe_scale, describe_sessions, with_beside
from cbtrain.study.evaluation.scores import ScoredStudy, audit_of, human_scores, records
from cbtrain.study.run_files import REPORT

Said = Mapping[tuple[str, str, int], Mapping[str, Any]]
"""Evidence and reasons of ratings, by session id, judge and repeat."""


def report_of(rated: ScoredStudy, found: Mapping[str, Any]) -> dict[str, Any]:
    """The report on ``rated`` with the analysis ``found``. What the run's own report tells of training, costs and
    protocol is taken over, where the scores are those of a run."""
    ground = _report_of_run(rated.run)
    title = ground.get("title") or f"Scores of {counted(len(set(rated.ratings.patient)), 'patient')}, analysed"
    sessions, names, said = list(records(rated.transcripts)), _names(ground), _said(rated.run, ground)
    made = _parts(title, rated.ratings, rated.deciding, sessions, rated.rubric, names, found, said)
    if rated.run is None:
        return made
    told = [f"analysed by {rated.chosen} alone"] if rated.chosen else []
    deviations = ground.get("deviations")
    return (
        ground
        | made
        | {
            "audit": audit_of(rated.run) if not rated.chosen else None,
            "deviations": [*deviations, *told] if isinstance(deviations, list) else deviations,
        }
    )


def report_of_runs(both: Comparison, found: Mapping[str, Any]) -> dict[str, Any]:
    """The report on several runs of one protocol."""
    sessions: list[SimulatedSession] = []
    names: dict[str, str] = {}
    said: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    for name, run in zip(both.names, both.runs, strict=True):
        ground = _report_of_run(run.run)
        sessions += [
            replace(session, id=f"{name}: {session.id}", arm=run_arm(name, session.arm))
            for session in records(run.transcripts)
        ]
        told = _said(run.run, ground).items()
        said |= {(f"{name}: {known}", judge, repeat): rating for (known, judge, repeat), rating in told}
        names |= _names(ground)
    title = f"{' and '.join(both.names)}, compared"
    made = _parts(title, both.ratings, both.deciding, sessions, both.runs[0].rubric, names, found, said)
    return made | {"protocol": both.protocol}


def _parts(
    title: str,
    ratings: Ratings,
    deciding: Sequence[str],
    sessions: Sequence[SimulatedSession],
    rubric: Rubric | None,
    names: Mapping[str, str],
    found: Mapping[str, Any],
    said: Said,
) -> dict[str, Any]:
    """What comes from ratings. Sessions that were rated are listed also where no transcript of them is there."""
    panel = panel_of(ratings, deciding)
    held = [session for session in sessions if session.arm in ratings.arms]
    known = {(session.arm, session.patient, session.seed): session.id for session in held}
    scores = [_score(ratings, row, known, said) for row in range(len(ratings))]
    unseen = {s.session_id: s for s in scores if (s.arm, s.patient, s.seed) not in known}
    held += [SimulatedSession(score.session_id, score.arm, score.patient, score.seed) for score in unseen.values()]
    return {
        "schema": SCHEMA,
        "created": now(),
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "title": title,
        "rater": describe_raters(panel),
        "scale": describe_scale(ratings, rubric),
        "arms": describe_arms(held, panel_ratings(ratings, panel), found),
        "analysis": dict(found),
        "sessions": describe_sessions(held, scores, names, ratings, panel),
    }


def describe_raters(panel: Panel) -> dict[str, str]:
    """Who decides, and who stands beside. The cue rater is called what it is wherever its scores appear."""
    kind = "cue" if panel.judges == [CUE_RATER] else "several" if len(panel.judges) > 1 else "one"
    label = "; ".join(CUE_RATER_LABEL if judge == CUE_RATER else judge for judge in panel.judges) or "nobody"
    return {"judge": ", ".join(panel.judges), "kind": kind, "label": with_beside(label, panel)}


def _score(ratings: Ratings, row: int, known: Mapping[tuple[str, str, int], str], said: Said) -> Score:
    arm, patient, seed = str(ratings.arm[row]), str(ratings.patient[row]), int(ratings.session[row])
    name = known.get((arm, patient, seed), f"{arm}/{patient}/{seed}")
    judge, repeat = str(ratings.judge[row]), int(ratings.repeat[row])
    values = zip(ratings.item_names, map(float, ratings.items[row]), strict=True)
    domains = {item: None if math.isnan(value) else value for item, value in values}
    told = said.get((name, judge, repeat), {})
    status = cast(Status, str(ratings.status[row]))
    return Score(
        name, arm, patient, seed, judge, repeat, status, domains, told.get("evidence", {}), told.get("reason", {})
    )


def _report_of_run(folder: Path | None) -> dict[str, Any]:
    """The report in ``folder``; empty where there is none, or none that this program has written like this."""
    if folder is None:
        return {}
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) and report.get("schema") == SCHEMA else {}


def _names(ground: Mapping[str, Any]) -> dict[str, str]:
    return {row["patient"]: row["patient_name"] for row in ground.get("sessions", [])}


def _said(folder: Path | None, ground: Mapping[str, Any]) -> Said:
    found: dict[tuple[str, str, int], Mapping[str, Any]] = {
        (session["id"], rating["judge"], rating["repeat"]): rating
        for session in ground.get("sessions", [])
        for rating in session["ratings"]
    }
    for score in human_scores(folder) if folder else ():
        key = (score.session_id, score.judge, score.repeat)
        found[key] = {"evidence": score.evidence, "reason": score.reason}
    return found
