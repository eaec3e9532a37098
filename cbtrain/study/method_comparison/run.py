"""One run of a comparison: what is trained, and the file that tells the process that does it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.files import read_sealed, seal, write_atomic
from cbtrain.study.run_files import SUMMARY

MEASURED = "measured.json"
"""In the folder of a run: what its model does on the test part."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """``settings`` are a study's, all of them; ``pairs`` a folder of parts. ``test_pairs``: how many pairs of the test
    part are asked about (None: all); ``lessons``: seed of the base's lessons, if the base is the task's small one;
    ``trained`` and ``size``: as in :class:`cbtrain.study.method_comparison.budget.Size`."""

    method: str
    rate: float
    seed: int
    settings: dict[str, Any]
    pairs: str
    prompt: str
    test_pairs: int | None
    lessons: int | None
    trained: int
    size: str | None

    @property
    def name(self) -> str:
        return f"{self.method}_rate-{self.rate:g}_seed-{self.seed}"

    @property
    def config(self) -> StudyConfig:
        return StudyConfig.model_validate(self.settings)


def plan_file(runs: Path, name: str) -> Path:
    """Return the file of a run's plan, beside its folder."""
    return runs / f"{name}.json"


def write_plan(plan: RunPlan, runs: Path) -> None:
    """Write ``plan`` into the folder ``runs``. Raises UserError if another one of that name has begun there."""
    file, content = plan_file(runs, plan.name), asdict(plan)
    if (runs / plan.name).exists():
        begun = read_sealed(file, f"Remove {runs / plan.name} to train it again.")
        if differs := [key for key, value in content.items() if begun.get(key) != value]:
            problem = f"this run has begun with other {' and '.join(differs)}"
            raise UserError(problem, where=runs / plan.name, hint="Choose another --out, or remove this folder.")
    write_atomic(file, json.dumps(seal(content), indent=2) + "\n")


def read_plan(file: Path) -> RunPlan:
    """Return the plan in ``file``. Raises UserError if it cannot be read."""
    content = read_sealed(file, "Start the comparison again.")
    return RunPlan(**{key: value for key, value in content.items() if key != "checksum"})


def trained_summary(runs: Path, plan: RunPlan) -> dict[str, Any] | None:
    """Return the summary of a run's training; None while there is none."""
    return _written(runs / plan.name / SUMMARY)


def measured(runs: Path, plan: RunPlan) -> dict[str, Any] | None:
    """Return what was measured of a run; None while it has not been."""
    return _written(runs / plan.name / MEASURED)


def _written(file: Path) -> dict[str, Any] | None:
    return read_sealed(file, "Remove the folder to run it again.") if file.exists() else None
