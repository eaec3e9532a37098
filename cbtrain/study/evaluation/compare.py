"""Compare runs: one analysis over the arms of all of them, if they have the same protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cbtrain.errors import UserError
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.ratings import Ratings, join_ratings
from cbtrain.eval.analysis.sessions import Key, SessionOutcome
from cbtrain.eval.report.schema.report import Report
from cbtrain.settings import differences
from cbtrain.study.evaluation.protocol import comparable, shown
from cbtrain.study.evaluation.scores import ScoredStudy, load_scores, records
from cbtrain.study.run_files import REPORT

PLAYED_BY = "patient.played by"
OWN_PATIENT = "an adapter with weights "
"""How a protocol names a patient that its own run has trained."""

NAMED = 6
"""Most differences that an error names; the others are counted."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs as one table, whose arms are called ``RUN: ARM`` and have the run as their base, with their own if the
    run has several. ``notes``: what a reader has to know of how the runs are related."""

    names: list[str]
    ratings: Ratings
    outcomes: dict[Key, SessionOutcome]
    runs: list[ScoredStudy]
    primary_judges: list[str]
    protocol: dict[str, Any]
    notes: list[str]

    @property
    def rotating(self) -> bool:
        """Return whether the judges took turns in every run."""
        return all(run.rotating for run in self.runs)


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Read the runs in ``folders`` as one. Raises UserError if one is no evaluated run, its protocol is not that of the
    first, or all its sessions are those of another. Runs whose patients are adapters of their own are compared, and a
    note says what that means: runs on different base models cannot have the same."""
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError("at least two different runs are needed", where=folders[0], hint="Name the run folders.")
    protocols = [_protocol(folder) for folder in folders]
    for folder, protocol in zip(folders[1:], protocols[1:], strict=True):
        _refuse_another(protocols[0], protocol, folders[0], folder)
    runs = [load_scores([folder]) for folder in folders]
    names = _names(folders)
    ratings = [_renamed(run.ratings, name) for run, name in zip(runs, names, strict=True)]
    outcomes = {
        (run_arm(name, arm), patient, seed): outcome
        for run, name in zip(runs, names, strict=True)
        for (arm, patient, seed), outcome in run.outcomes.items()
    }
    judges = dict.fromkeys(judge for run in runs for judge in run.primary_judges or run.ratings.judges)
    notes = _own_patients(names, protocols)
    notes += [
        note
        for (first, run), (second, other) in combinations(zip(folders, runs, strict=True), 2)
        for note in _same_sessions(first, run, second, other)
    ]
    joined = join_ratings(ratings, ", ".join(map(str, folders)))
    return Comparison(names, joined, outcomes, runs, list(judges), protocols[0], notes)


def _same_sessions(first: Path, run: ScoredStudy, second: Path, other: ScoredStudy) -> Iterator[str]:
    """Yield a note if two runs have identical sessions, which the same base model and seeds may give. Raises UserError
    if all their sessions are identical."""
    run_sessions = {session.id: session for session in records(run.transcripts) if session.turns}
    other_sessions = [session for session in records(other.transcripts) if session.turns]
    same = [s for s in other_sessions if s.id in run_sessions and run_sessions[s.id].turns == s.turns]
    if other_sessions and len(same) == len(other_sessions) == len(run_sessions):
        hint = "Name runs that were evaluated separately."
        raise UserError(f"all its sessions are identical to those of {first}", where=second, hint=hint)
    if same:
        arms = ", ".join(sorted({session.arm for session in same}))
        identical = f"{len(same)} sessions of {second.name} ({arms}) are identical to sessions of {first.name}"
        yield f"{identical}: the mixed model counts them as different; contrasts by patient do not depend on that"


def _protocol(folder: Path) -> dict[str, Any]:
    path = folder / REPORT
    if not path.is_file():
        raise UserError("not an evaluated run", where=folder, hint="Name a folder that holds a report.json.")
    protocol = Report.read(path).protocol
    if not protocol:
        hint = f"`cbtrain evaluate --run {folder}` writes a report that names it; sessions and ratings are kept."
        raise UserError("its report does not name the protocol", where=folder, hint=hint)
    return comparable(protocol)


def _refuse_another(first_protocol: dict[str, Any], second_protocol: dict[str, Any], first: Path, second: Path) -> None:
    own_patients = all(_played_by(p).startswith(OWN_PATIENT) for p in (first_protocol, second_protocol))
    different = [
        f"{key} ({shown(one)} and {shown(other)})"
        for key, one, other in differences(first_protocol, second_protocol)
        if not (key == PLAYED_BY and own_patients)
    ]
    if not different:
        return
    more = [f"{len(different) - NAMED} more"] if len(different) > NAMED else []
    hint = "Scores are comparable under one protocol only: evaluate one of them again with the settings of the other."
    problem = f"its protocol differs from that of {first}: {'; '.join([*different[:NAMED], *more])}"
    raise UserError(problem, where=second, hint=hint)


def _played_by(protocol: dict[str, Any]) -> str:
    section, _, key = PLAYED_BY.partition(".")
    return str(protocol.get(section, {}).get(key, ""))


def _own_patients(names: Sequence[str], protocols: Sequence[dict[str, Any]]) -> list[str]:
    """Return a note if the runs do not share the model that plays the patients."""
    if len(set(map(_played_by, protocols))) < 2:
        return []
    who = " and ".join(names)
    return [
        f"the patients of {who} are played by different models (each run trained its own): a difference between runs "
        "may be due to the patients; differences within a run are not. To use one model for the patients of all runs, "
        "set evaluation.patient_provider"
    ]


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, or their paths if two names are the same."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _renamed(ratings: Ratings, name: str) -> Ratings:
    several = len({arm.base for arm in ratings.arms.values()}) > 1
    arms = {
        run_arm(name, arm.name): Arm(
            run_arm(name, arm.name), f"{name} {arm.base}".strip() if several else name, arm.variant
        )
        for arm in ratings.arms.values()
    }
    return replace(ratings, arms=arms, arm=np.array([run_arm(name, str(arm)) for arm in ratings.arm]))


def run_arm(run: str, arm: str) -> str:
    """Return the name of a run's arm among the arms of several runs."""
    return f"{run}: {arm}"
