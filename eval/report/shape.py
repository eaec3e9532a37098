"""Reading the report's dict without trusting its shape: a missing or odd part becomes an empty one, never an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cbtrain.eval.report.formatting import number

Report = dict[str, Any]


def plain(value: object) -> Any:
    """``value`` in what JSON can hold: NaN and infinities become null, stray objects and half characters text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {words(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return words(value)


def words(value: object) -> str:
    """``value`` as valid text; null is empty."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()


def rows(value: object) -> list[dict[str, Any]]:
    """The dicts of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Domain:
    id: str
    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """The instrument. ``total_low`` and ``total_high`` bound a session's total, which is competent from ``cutoff`` on;
    None where the report does not say."""

    name: str
    low: float | None
    high: float | None
    total_low: float | None
    total_high: float | None
    cutoff: float | None
    note: str
    domains: tuple[Domain, ...]


def scale_of(report: Report) -> Scale:
    """The scale; domains that it does not list but arms or sessions score are added under their ids."""
    raw = table(report.get("scale"))
    found = {
        words(row["id"]): Domain(words(row["id"]), words(row.get("name") or row["id"]), words(row.get("description")))
        for row in rows(raw.get("domains"))
        if row.get("id") is not None
    }
    for scored in rows(report.get("arms")) + rows(report.get("sessions")):
        for name in table(scored.get("domains")):
            found.setdefault(name, Domain(name, name))
    low, total_low = number(raw.get("min")), None
    if low is not None:
        total_low = low * len(found)
    return Scale(
        words(raw.get("name")),
        low,
        number(raw.get("max")),
        total_low,
        number(raw.get("total_max")),
        number(raw.get("cutoff")),
        words(raw.get("note")),
        tuple(found.values()),
    )


def arms_of(report: Report) -> list[dict[str, Any]]:
    """The arms in order, each with ``name`` and ``label``; arms known only from sessions are added without figures."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows(report.get("arms")):
        name = words(row.get("name") or row.get("label") or "arm")
        found.setdefault(name, {**row, "name": name, "label": words(row.get("label") or name)})
    for session in rows(report.get("sessions")):
        if name := words(session.get("arm")):
            found.setdefault(name, {"name": name, "label": name})
    return list(found.values())


def rater_of(report: Report) -> str:
    """The label that stands beside every score, without a full stop: it is quoted inside sentences."""
    raw = table(report.get("rater"))
    return words(raw.get("label") or raw.get("judge")).strip().rstrip(".") or "rater not recorded"
