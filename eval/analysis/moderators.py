"""What is known of each patient: columns by which the analysis forms subgroups (severity, engagement, style, risk)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cbtrain.errors import UserError
from cbtrain.patients.case import COLUMNS
from cbtrain.transcripts.source import natural_key

Moderators = Mapping[str, Mapping[str, str]]
"""By column and patient, its value. A patient whose value is not known is left out."""

NAMED = 5
"""Most contradictions that an error names."""


def moderators_of(patients: Iterable[tuple[str, Mapping[str, str]]], where: object) -> Moderators:
    """Return the columns of ``patients``: names, each with what one source says of it. Raises UserError, which names
    ``where``, if a patient has two values of a column."""
    found: dict[str, dict[str, str]] = {}
    problems: dict[str, None] = {}
    for patient, columns in patients:
        for name, value in columns.items():
            first = found.setdefault(name, {}).setdefault(patient, value)
            if first != value:
                problems[f"patient {patient} has {name} {first!r} and {value!r}"] = None
    if problems:
        more = [f"{len(problems) - NAMED} more"] if len(problems) > NAMED else []
        hint = "Give every patient one value in all rows; an empty cell counts as not known."
        raise UserError("; ".join([*list(problems)[:NAMED], *more]), where=where, hint=hint)
    return {name: found[name] for name in COLUMNS if name in found}


def in_level_order(column: str, values: Iterable[str]) -> list[str]:
    """Return the different ``values`` of ``column``: known ones in their order, then others by name."""
    known, found = COLUMNS.get(column, ()), set(values)
    return [*(value for value in known if value in found), *sorted(found - set(known), key=natural_key)]
