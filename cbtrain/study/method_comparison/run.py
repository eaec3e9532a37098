"""One run of a comparison: what is trained, and the file that tells the process that does it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError, first_of
from cbtrain.files import read_sealed, seal, write_atomic
from cbtrain.settings import differences
from cbtrain.study.run_files import SUMMARY

MEASURED = "measured.json"
"""In the folder of a run: what its model does on the test part."""


OF_BASE = "base-measured.json"
"""Beside the runs: what the base does on the test part."""

BESIDE = "beside.json"
"""In the folder of a run: how many runs trained at a time."""

JOBS = "CBTRAIN_JOBS"
"""Environment variable that tells a run so."""


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


def plan_file(runs: Path, name: str) -> Path:
    """Return the file of a run's plan, beside its folder."""
    return runs / f"{name}.json"


def write_plan(plan: RunPlan, runs: Path) -> None:
    """Write ``plan`` into the folder ``runs``. Raises UserError if another one of that name has begun there."""
    file = plan_file(runs, plan.name)
    if (runs / plan.name).exists():
        before, now = read_plan(file).identity(), plan.identity()
        if differs := [f"{key} ({old!r}, now {new!r})" for key, old, new in differences(before, now)]:
            problem = f"this run has begun with another {', '.join(first_of(differs, 3))}"
            raise UserError(problem, where=runs / plan.name, hint="Choose another --out, or remove this folder.")
    write_atomic(file, json.dumps(seal(asdict(plan)), indent=2) + "\n")


def read_plan(file: Path) -> RunPlan:
    """Return the plan in ``file``. Raises UserError if it cannot be read."""
    hint = f"Remove {file.with_suffix('')} to train it again."
    content = read_sealed(file, hint)
    try:
        return RunPlan(**{key: value for key, value in content.items() if key != "checksum"})
    except TypeError:
        raise UserError("a plan of another version", where=file, hint=hint) from None


def trained_summary(runs: Path, plan: RunPlan) -> dict[str, Any] | None:
    """Return the summary of a run's training; None while there is none."""
    return _written(runs / plan.name / SUMMARY)


def measured(runs: Path, plan: RunPlan) -> dict[str, Any] | None:
    """Return what was measured of a run; None while it has not been."""
    return _written(runs / plan.name / MEASURED)


def base_measured(runs: Path) -> dict[str, Any] | None:
    """Return the scores of the base; None while they are not measured."""
    return _written(runs / OF_BASE)


def jobs_of(runs: Path, plan: RunPlan) -> int:
    """Return how many runs trained at a time when this one did; 1 if it is not known."""
    found = _written(runs / plan.name / BESIDE)
    return int(found["jobs"]) if found else 1


def _written(file: Path) -> dict[str, Any] | None:
    return read_sealed(file, "Remove the folder to run it again.") if file.exists() else None
