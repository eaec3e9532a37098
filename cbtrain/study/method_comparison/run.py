"""One run of a comparison: what is trained, and what it has written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.study.method_comparison.plan_files import read_result
from cbtrain.study.run_files import SUMMARY

OF_BASE = "base-measured.json"
"""Beside the runs: what the base does on the test part."""

BESIDE = "beside.json"
"""In the folder of a run: how many runs trained at a time."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """``settings`` are a study's, all of them; ``base`` is the fingerprint of its model. ``pairs`` is a folder of
    parts, of which ``data`` is a hash. ``test_pairs``: how many pairs of the test part are asked about (None: all).
    ``lessons``: seed of the base's lessons, if it is the task's small one. ``trained`` and ``size``: as in
    :class:`cbtrain.study.method_comparison.budget.Size`."""

    method: str
    rate: float
    seed: int
    settings: dict[str, Any]
    base: str
    pairs: str
    data: str
    prompt: str
    test_pairs: int | None
    lessons: int | None
    trained: int
    size: str | None

    @property
    def name(self) -> str:
        return f"{self.method}_rate-{self.rate:g}_seed-{self.seed}"

    def identity(self) -> dict[str, Any]:
        """Return what decides the run: not where base and pairs lie."""
        content = asdict(self)
        del content["pairs"]
        content["settings"] = {**self.settings, "model": {**self.settings["model"], "path": None}}
        return content

    @property
    def config(self) -> StudyConfig:
        return StudyConfig.model_validate(self.settings)


def trained_summary(runs: Path, plan: RunPlan) -> dict[str, Any] | None:
    """Return the summary of a run's training; None while there is none."""
    return read_result(runs / plan.name / SUMMARY)


def base_measured(runs: Path) -> dict[str, Any] | None:
    """Return the scores of the base; None while they are not measured."""
    return read_result(runs / OF_BASE)


def jobs_of(runs: Path, plan: RunPlan) -> int:
    """Return how many runs trained at a time when this one did; 1 if it is not known."""
    found = read_result(runs / plan.name / BESIDE)
    return int(found["jobs"]) if found else 1
