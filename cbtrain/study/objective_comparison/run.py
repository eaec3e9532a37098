"""One run of a comparison of objectives: what is trained, and what it has written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.study.method_comparison.plan_files import read_result
from cbtrain.study.run_files import STATE, SUMMARY

OF_BASE = "untuned"
"""The name of the run that is the base alone."""

THERAPIST = "therapist"


@dataclass(frozen=True, slots=True)
class RunPlan:
    """``settings`` are a study's, all of them, ``asked`` those by which pairs are measured. ``base`` is the fingerprint
    of the model, ``data`` a hash of the parts of the pairs. ``rate`` is 0 for what is no tuned arm: the base alone, and
    the training of a small one."""

    arm: str
    rate: float
    seed: int
    settings: dict[str, Any]
    asked: dict[str, Any]
    base: str
    data: str

    @property
    def name(self) -> str:
        return f"{self.arm}_rate-{self.rate:g}_seed-{self.seed}" if self.rate else self.arm

    def identity(self) -> dict[str, Any]:
        content = asdict(self)
        for key in ("settings", "asked"):
            settings = content[key]
            content[key] = {**settings, "model": {**settings["model"], "path": None}}
            corpus = {**settings["corpus"], "path": None, "validation": None, "test": None}
            content[key]["corpus"] = corpus
            del content[key]["evaluation"]
        return content

    @property
    def config(self) -> StudyConfig:
        return StudyConfig.model_validate(self.settings)


def adapter_of(runs: Path, plan: RunPlan) -> Path:
    """Return the folder of what a run has trained."""
    return runs / plan.name / THERAPIST


def trained_summary(runs: Path, plan: RunPlan) -> dict[str, Any] | None:
    """Return the summary of a run's training; None while it has not ended."""
    folder = runs / plan.name
    return read_result(folder / "training" / THERAPIST / SUMMARY) if (folder / STATE).exists() else None


def of_arm(plans: Sequence[RunPlan], arm: str) -> list[RunPlan]:
    return [plan for plan in plans if plan.arm == arm]
