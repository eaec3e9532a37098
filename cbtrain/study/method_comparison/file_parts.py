"""What files of comparisons have in common, whatever they compare (torch-free)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from cbtrain.errors import UserError
from cbtrain.settings import parse_yaml
from cbtrain.text.faults import first_fault

Rates = list[float]

RATES = "learning_rates"

MANY, VALIDATIONS = 10_000, 8
"""Epochs, or validations without improvement, that no run has; validations of a run."""


class Checked(Protocol):
    """The model of a file, whose settings are checked after it is read."""

    def check(self) -> None:
        """Raise UserError on settings that cannot be used."""


File = TypeVar("File", bound=Checked)


def as_mapping(given: Any) -> Any:
    """Return ``[a, b]`` as a mapping, and what is null as no settings."""
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        given = {name: {} for name in given}
    return {name: own or {} for name, own in given.items()} if isinstance(given, dict) else given


def refuse_twins(values: Mapping[str, Sequence[Any]]) -> None:
    """Raise ValueError if one of the ``values`` of a key comes twice."""
    for key, each in values.items():
        if len(set(each)) != len(each):
            raise ValueError(f"{key}: one comes twice")


def rising_rates(given: Any) -> Rates | None:
    """Return learning rates, rising; None on what are no numbers above 0, or none at all."""
    rates = given if isinstance(given, list) else [given]
    if not rates or not all(isinstance(one, int | float) and not isinstance(one, bool) and one > 0 for one in rates):
        return None
    return sorted({float(one) for one in rates})


def run_budget(tokens: int) -> dict[str, Any]:
    """Return what ends every run after ``tokens``: none ends before another, and the best of all validations is
    kept."""
    return {
        "token_budget": tokens,
        "max_epochs": MANY,
        "patience": MANY,
        "validate_every": max(1, tokens // VALIDATIONS),
    }


def read_file(path: Path, make: Callable[[dict[str, Any]], File], has: str, page: str) -> File:
    """Return what ``make`` makes of the YAML mapping in ``path``, checked. ``has`` says what a comparison has, ``page``
    where to read. Raises UserError if it cannot be used."""
    content = parse_yaml(lambda: path.read_text(encoding="utf-8"), path)
    if not isinstance(content, dict):
        raise UserError(f"not a comparison: a mapping with {has}", where=path, hint=page)
    try:
        found = make(content)
    except ValidationError as error:
        raise UserError(first_fault(error), where=path, hint=page) from None
    try:
        found.check()
    except UserError as error:
        problem = f"{error.where}: {error.what}" if error.where else error.what
        raise UserError(problem, where=path, hint=error.hint) from None
    return found
