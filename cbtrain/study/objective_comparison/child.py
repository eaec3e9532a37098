"""The process of one run: ``python -m cbtrain.study.objective_comparison.child base|train|measure PLAN``.

Each run has a process of its own, as `cbtrain train` would have, and a run that dies takes no other with it.
"""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.files import seal, write_atomic
from cbtrain.study.child_process import serve_step
from cbtrain.study.method_comparison.plan_files import MEASURED, read_plan
from cbtrain.study.objective_comparison.measure import measure_pairs
from cbtrain.study.objective_comparison.run import OF_BASE, THERAPIST, RunPlan
from cbtrain.study.pipeline import set_up, train_study


def train(file: Path, folder: Path, console: Console) -> None:
    """Train as the plan in ``file`` says in ``folder``, where an interrupted training continues."""
    train_study(read_plan(file, RunPlan).config, folder, console)


def measure(file: Path, folder: Path, console: Console) -> None:
    """Ask what was trained in ``folder``, or the base alone, about the pairs that were not trained."""
    plan = read_plan(file, RunPlan)
    config = StudyConfig.model_validate(plan.asked)
    set_up(config)
    adapter = None if plan.arm == OF_BASE else folder / THERAPIST
    found = measure_pairs(config, adapter, console)
    folder.mkdir(exist_ok=True)
    write_atomic(folder / MEASURED, json.dumps(seal(found), indent=2) + "\n")


if __name__ == "__main__":
    serve_step({"train": train, "measure": measure})
