"""Single values of a record: a number to sort by, a text that may be missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cbtrain.errors import UserError
from cbtrain.transcripts.mapping.turns import FIX


def place_of(value: Any, order: str, where: str) -> float:
    """Return the number by which rows are sorted. Raises UserError if ``value`` is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number):
        return number
    raise UserError(f"{order} {value!r} is not a number", where=where, hint=FIX)


def optional_text(record: Mapping[str, Any], key: str, where: str, used: set[str]) -> str:
    """Return the text or number under ``key``, empty if there is none, and add ``key`` to ``used``. Raises UserError if
    it is something else."""
    if key not in record or key in used:
        return ""
    used.add(key)
    value = record[key]
    if value is None or value != value:  # NaN, an empty cell of a data frame
        return ""
    if isinstance(value, float) and value.is_integer():  # a column of numbers with an empty cell
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{key} is not a text", where=where, hint=FIX)
    return value
