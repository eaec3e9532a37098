"""Plans of runs, a file beside the folder of each: what tells the process of a run what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from cbtrain.errors import UserError, first_of
from cbtrain.files import read_sealed, seal, write_atomic
from cbtrain.settings import differences


class Plan(Protocol):
    """A dataclass that says what one run does."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """That of the run's folder."""

    def identity(self) -> dict[str, Any]:
        """Return what decides the run: not where its files lie."""


AnyPlan = TypeVar("AnyPlan", bound=Plan)


MEASURED = "measured.json"
"""In the folder of a run: what was measured of its model."""


def plan_file(runs: Path, name: str) -> Path:
    """Return the file of a run's plan, beside its folder."""
    return runs / f"{name}.json"


def write_plan(plan: Plan, runs: Path) -> None:
    """Write ``plan`` into the folder ``runs``. Raises UserError if another one of that name has begun there."""
    file = plan_file(runs, plan.name)
    if (runs / plan.name).exists():
        before, now = read_plan(file, type(plan)).identity(), plan.identity()
        if differs := [f"{key} ({old!r}, now {new!r})" for key, old, new in differences(before, now)]:
            problem = f"this run has begun with another {', '.join(first_of(differs, 3))}"
            raise UserError(problem, where=runs / plan.name, hint="Choose another --out, or remove this folder.")
    write_atomic(file, json.dumps(seal(asdict(plan)), indent=2) + "\n")


def write_plans(plans: Sequence[Plan], runs: Path) -> None:
    """Write each of ``plans``. Raises UserError as :func:`write_plan`."""
    for plan in plans:
        write_plan(plan, runs)


def read_plan(file: Path, kind: type[AnyPlan]) -> AnyPlan:
    """Return the plan in ``file``. Raises UserError if it cannot be read."""
    hint = f"Remove {file.with_suffix('')} to train it again."
    content = read_sealed(file, hint)
    try:
        return kind(**{key: value for key, value in content.items() if key != "checksum"})
    except TypeError:
        raise UserError("a plan of another version", where=file, hint=hint) from None


def read_result(file: Path) -> dict[str, Any] | None:
    """Return what a run has written last to ``file``; None while there is none."""
    return read_sealed(file, "Remove the folder to run it again.") if file.exists() else None


def measured(runs: Path, plan: Plan) -> dict[str, Any] | None:
    """Return what was measured of a run; None while it has not been."""
    return read_result(runs / plan.name / MEASURED)


def best_rate(found: Mapping[float, tuple[float | None, float]]) -> float | None:
    """Return the learning rate of the best run. ``found``: by rate the validation loss, None if there is none, and the
    share of validation pairs of answers ranked rightly, 0 where answers are not compared. The largest share is best,
    and of equal ones the lowest loss. None if no loss is finite."""
    finite = {rate: (-right, loss) for rate, (loss, right) in found.items() if loss is not None and math.isfinite(loss)}
    return min(finite, key=lambda rate: finite[rate]) if finite else None
