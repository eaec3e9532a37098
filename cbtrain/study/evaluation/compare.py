"""Runs beside each other: one analysis over the arms of all of them, where they hold to the same protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cbtrain.errors import UserError
from cbtrain.eval.analysis.ratings import Arm, Ratings, join_ratings
from cbtrain.eval.analysis.sessions import Key, SessionOutcome
from cbtrain.study.evaluation.protocol import differing, value_at
from cbtrain.study.evaluation.scores import ScoredStudy, load_scores, records
from cbtrain.study.run_files import REPORT

NAMED = 6
"""Differences that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs as one table, whose arms are called ``RUN: ARM`` and have the run as their base. ``notes``: what a
    reader has to know of how the runs hang together."""

    names: list[str]
    ratings: Ratings
    facts: dict[Key, SessionOutcome]
    runs: list[ScoredStudy]
    deciding: list[str]
    protocol: dict[str, Any]
    notes: list[str]


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Raises UserError where a folder is no evaluated run, its protocol is not that of the first, or it holds the very
    sessions of another."""
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError("two different runs at least are needed", where=folders[0], hint="Name the run folders.")
    protocols = [_protocol(folder) for folder in folders]
    for folder, protocol in zip(folders[1:], protocols[1:], strict=True):
        _refuse_another(protocols[0], protocol, folders[0], folder)
    runs = [load_scores([folder]) for folder in folders]
    names = _names(folders)
    renamed = [_renamed(run.ratings, name) for run, name in zip(runs, names, strict=True)]
    facts = {
        (run_arm(name, arm), patient, seed): found
        for run, name in zip(runs, names, strict=True)
        for (arm, patient, seed), found in run.facts.items()
    }
    joined = join_ratings(renamed, ", ".join(map(str, folders)))
    deciding = list(dict.fromkeys(judge for run in runs for judge in run.deciding or run.ratings.judges))
    notes = [
        note
        for (one, first), (two, second) in combinations(zip(folders, runs, strict=True), 2)
        for note in _same_sessions(one, first, two, second)
    ]
    return Comparison(names, joined, facts, runs, deciding, protocols[0], notes)


def _same_sessions(first: Path, one: ScoredStudy, second: Path, other: ScoredStudy) -> Iterator[str]:
    """How many sessions two runs have word for word in common, which one base model and the same seeds may give. Raises
    UserError where these are all of them."""
    known = {session.id: session for session in records(one.transcripts) if session.turns}
    held = [session for session in records(other.transcripts) if session.turns]
    same = [session for session in held if session.id in known and known[session.id].turns == session.turns]
    if held and len(same) == len(held) == len(known):
        hint = "Name runs that were evaluated by themselves."
        raise UserError(f"its sessions are those of {first}, word for word", where=second, hint=hint)
    if same:
        arms = ", ".join(sorted({session.arm for session in same}))
        told = f"{len(same)} sessions of {second.name} ({arms}) are word for word those of {first.name}"
        yield f"{told}: models of sessions take them for others, the patients' differences do not rest on that"


def _protocol(folder: Path) -> dict[str, Any]:
    path = folder / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("not an evaluated run", where=folder, hint="Name a folder that holds a report.json.") from None
    except ValueError as error:
        raise UserError(f"damaged ({error})", where=path, hint="Evaluate the run again.") from None
    protocol = report.get("protocol") if isinstance(report, dict) else None
    if not isinstance(protocol, dict) or not protocol:
        hint = f"`cbtrain evaluate --run {folder}` writes a report that tells it; sessions and ratings are kept."
        raise UserError("its report does not tell the protocol", where=folder, hint=hint)
    return protocol


def _refuse_another(one: dict[str, Any], other: dict[str, Any], first: Path, second: Path) -> None:
    found = differing(one, other)
    if not found:
        return
    told = [f"{key} ({value_at(one, key)} and {value_at(other, key)})" for key in found[:NAMED]]
    more = [f"{len(found) - NAMED} more"] if len(found) > NAMED else []
    hint = "Scores are comparable under one protocol only: evaluate one of them again with the settings of the other."
    raise UserError(f"another protocol than {first}: {'; '.join([*told, *more])}", where=second, hint=hint)


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or their paths where those are not different."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _renamed(ratings: Ratings, name: str) -> Ratings:
    arms = {run_arm(name, arm.name): Arm(run_arm(name, arm.name), name, arm.variant) for arm in ratings.arms.values()}
    return replace(ratings, arms=arms, arm=np.array([run_arm(name, str(arm)) for arm in ratings.arm]))


def run_arm(run: str, arm: str) -> str:
    """What an arm of a run is called among those of several runs."""
    return f"{run}: {arm}"
