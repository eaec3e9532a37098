"""For whom, when, and by whom the patient was played: what the report says of subgroups, phases and trends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cbtrain.eval.report.formatting import SIGNIFICANT, counted, fixed, span
from cbtrain.eval.report.schema.analysis import Analysis
from cbtrain.eval.report.schema.course import PhaseRow, SubgroupRow, VariationRow
from cbtrain.eval.report.schema.estimates import ContrastRow
from cbtrain.eval.report.schema.report import Report, ReportPatient

SIMULATOR = "simulator"
MOST_NAMED = 4
"""Contrasts that a sentence names one by one."""

SAME = {
    "same": "the sign is the same with each simulator, and each interval leaves out zero",
    "open": "the sign is the same with each simulator, but not each interval leaves out zero",
    "signs": "the sign differs between simulators",
    "unknown": "not every simulator has an estimate",
}
"""What the estimates with several simulators have in common."""


@dataclass(frozen=True, slots=True)
class FactorRows:
    """A contrast by the levels of one factor, and its test of variation."""

    contrast: str
    factor: str
    rows: list[SubgroupRow]
    test: VariationRow | None


def main_contrast(analysis: Analysis) -> ContrastRow | None:
    """Return the first planned contrast that averages over bases, else the first in a base, else the first; None if no
    contrast has patients."""
    rows = [row for row in analysis.contrasts if row.patients]
    for family in ("pooled", "tuning"):
        if found := next((row for row in rows if row.family == family), None):
            return found
    return rows[0] if rows else None


def subgroups_of(analysis: Analysis) -> list[FactorRows]:
    """Return the subgroups of every contrast, the main one first."""
    part = analysis.subgroups
    if part is None:
        return []
    tests = {(row.contrast, row.factor): row for row in part.variation}
    grouped: dict[tuple[str, str], list[SubgroupRow]] = {}
    for row in part.rows:
        grouped.setdefault((row.contrast, row.factor), []).append(row)
    main = main_contrast(analysis)
    keys = sorted(grouped, key=lambda key: main is None or key[0] != main.id)
    return [FactorRows(*key, grouped[key], tests.get(key)) for key in keys]


def main_subgroups(analysis: Analysis) -> list[FactorRows]:
    """Return those of :func:`subgroups_of` that belong to its first contrast."""
    found = subgroups_of(analysis)
    return [group for group in found if group.contrast == found[0].contrast]


def variation_sentence(analysis: Analysis) -> str:
    """Return how many tests found that a difference varies; empty if there was no test."""
    part = analysis.subgroups
    if part is None or not part.variation:
        return ""
    held = [row for row in part.variation if row.p_adjusted is not None and row.p_adjusted < SIGNIFICANT]
    named = "; ".join(f"{row.contrast} by {row.factor}" for row in held[:MOST_NAMED])
    more = f" and {len(held) - MOST_NAMED} more" if len(held) > MOST_NAMED else ""
    found = f"After Holm a difference varies in {len(held)}: {named}{more}." if held else "None holds after Holm."
    return f"{part.note[:1].upper()}{part.note[1:]}. {found}" if part.note else found


def simulator_sentence(analysis: Analysis) -> str:
    """Return whether the main difference is the same with each simulator, and of how many others that is true; empty if
    there is one simulator only."""
    groups = [group for group in subgroups_of(analysis) if group.factor == SIMULATOR]
    if not groups:
        return ""
    main, *others = groups
    estimates = ", ".join(
        f"{row.level} {fixed(row.estimate, signed=True)} ({span(row.ci_low, row.ci_high)})" for row in main.rows
    )
    sentence = f"{main.contrast}: {SAME[_sameness(main.rows)]}: {estimates}."
    counts = Counter(_sameness(group.rows) for group in others)
    counted_others = "; ".join(f"{counts[kind]}, {text}" for kind, text in SAME.items() if counts[kind])
    return f"{sentence} Of {counted(len(others), 'other contrast')}: {counted_others}." if others else sentence


def _sameness(rows: Sequence[SubgroupRow]) -> str:
    """Return which key of :data:`SAME` is true of ``rows``, one for each simulator."""
    known = [row for row in rows if row.estimate is not None]
    if len(known) < len(rows):
        return "unknown"
    if len({(row.estimate or 0.0) > 0 for row in known}) > 1:
        return "signs"
    sided = [
        row for row in known if row.ci_low is not None and row.ci_high is not None and row.ci_low * row.ci_high > 0
    ]
    return "same" if len(sided) == len(rows) else "open"


def phases_of(analysis: Analysis) -> dict[str, list[PhaseRow]]:
    """Return the rows of each arm by its name, phases in order."""
    by_arm: dict[str, list[PhaseRow]] = {}
    for row in analysis.by_phase:
        by_arm.setdefault(row.name, []).append(row)
    return by_arm


def columns_of(patients: Sequence[ReportPatient]) -> list[str]:
    """Return the columns that any of ``patients`` has, in order."""
    return list(dict.fromkeys(name for patient in patients for name in patient.columns))


def course_view(report: Report) -> dict[str, Any]:
    """Return what the page's section has beside the report itself."""
    analysis = report.analysis
    by_contrast: dict[str, list[FactorRows]] = {}
    for group in subgroups_of(analysis):
        by_contrast.setdefault(group.contrast, []).append(group)
    tests = analysis.subgroups.variation if analysis.subgroups else []
    phases = phases_of(analysis)
    return {
        "groups": list(by_contrast.items()),
        "methods": list(dict.fromkeys(test.method for test in tests if test.method)),
        "variation": variation_sentence(analysis),
        "simulators": simulator_sentence(analysis),
        "phases": phases,
        "phase_names": [row.phase for row in next(iter(phases.values()), [])],
        "columns": columns_of(report.patients),
    }


def has_course(report: Report) -> bool:
    """Return whether there is anything to say of subgroups, phases, trends or columns of patients."""
    analysis = report.analysis
    return bool(analysis.subgroups or analysis.by_phase or analysis.trend or columns_of(report.patients))
