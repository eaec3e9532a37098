"""Runs that differ in nothing but their seed: how far chance moves the held-out loss."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cbtrain.study.sweep.row import RunResult


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """Held-out losses of ``runs`` (names) of one ``speaker`` with the same ``settings`` but for the seed: ``mean``, and
    the standard deviation ``sd`` of one run."""

    speaker: str
    settings: dict[str, Any]
    runs: list[str]
    mean: float
    sd: float


def over_seeds(results: Sequence[RunResult]) -> list[OverSeeds]:
    """Return the groups of two runs or more that differ in the seed alone, the lowest mean of each speaker first."""
    groups: dict[str, list[RunResult]] = {}
    for run in results:
        if run.held_out_loss is not None:
            groups.setdefault(json.dumps([run.speaker, _without_seed(run)], sort_keys=True), []).append(run)
    found = []
    for members in groups.values():
        losses = [run.held_out_loss for run in members if run.held_out_loss is not None]
        if len(losses) > 1:
            first, names = members[0], [run.name for run in members]
            mean, sd = statistics.fmean(losses), statistics.stdev(losses)
            found.append(OverSeeds(first.speaker, _without_seed(first), names, mean, sd))
    return sorted(found, key=lambda group: (group.speaker, group.mean))


def _without_seed(run: RunResult) -> dict[str, Any]:
    return {key: value for key, value in run.differs.items() if key != f"{run.speaker}.seed"}
