"""The analysis in the report's dict, contrast by contrast: the primary figures, and beside them what checks them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cbtrain.eval.report.formatting import fixed, number
from cbtrain.eval.report.shape import Report, rows, table, words

FAMILIES = {
    "tuning": "Tuned against untuned, by base",
    "pooled": "Tuned against untuned, over all bases",
    "tuned": "Tuned against tuned",
    "arms": "Pairs of therapists",
}
"""What the families of contrasts are called; each is adjusted by itself (Holm)."""

SIGNIFICANT = 0.05

MANY = 8
"""With more contrasts than this figures and wide tables keep to the primary numbers; other tables have the rest."""


@dataclass(frozen=True, slots=True)
class Band:
    """An interval beside the primary one; ``estimate`` is None where the method gives no point of its own."""

    name: str
    estimate: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One contrast, in points. ``raw`` is its row in ``analysis.contrasts``; ``patients``: mean difference of each;
    ``bands``: bootstrap, mixed model, sensitivities, in a fixed order, only those that are there."""

    id: str
    family: str
    estimate: float | None
    low: float | None
    high: float | None
    patients: dict[str, float]
    bands: tuple[Band, ...]
    notes: tuple[str, ...]
    raw: dict[str, Any]

    @property
    def count(self) -> int | None:
        """Patients behind it; None where the report does not say."""
        return len(self.patients) or None


def analysis_of(report: Report) -> dict[str, Any]:
    return table(report.get("analysis"))


def findings_of(report: Report) -> list[Finding]:
    """Every contrast in the report's order, with the rows of the other parts that bear its id."""
    raw = analysis_of(report)
    length = table(raw.get("length"))
    least = table(length.get("at_least"))
    beside: list[tuple[str, Any, Callable[[dict[str, Any]], tuple[Any, Any, Any]]]] = [
        ("mixed model", raw.get("mixed_models"), _wald),
        ("ln(turns)", length.get("adjusted"), _wald),
        ("matched", table(length.get("matched")).get("contrasts"), _wald),
        (f"≥ {words(least.get('turns')) or '?'} turns", least.get("contrasts"), _wald),
        ("worst case", raw.get("bounds"), lambda row: (None, row.get("worst_low"), row.get("worst_high"))),
    ]
    found = []
    for row in rows(raw.get("contrasts")):
        name = words(row.get("id"))
        bands = [_band("bootstrap", None, row.get("bootstrap_low"), row.get("bootstrap_high"))]
        for label, others, read in beside:
            other = next((other for other in rows(others) if words(other.get("id")) == name), None)
            bands.append(_band(label, *read(other)) if other else None)
        patients = {patient: number(value) for patient, value in table(row.get("patients")).items()}
        found.append(
            Finding(
                name or "contrast",
                words(row.get("family")),
                number(row.get("estimate")),
                number(row.get("ci_low")),
                number(row.get("ci_high")),
                {patient: value for patient, value in patients.items() if value is not None},
                tuple(band for band in bands if band),
                tuple(notes_of(row)),
                row,
            )
        )
    return found


def shared_notes(findings: list[Finding]) -> list[str]:
    """Notes that stand on every contrast, where there is more than one: they are shown once."""
    if len(findings) < 2:
        return []
    return [note for note in findings[0].notes if all(note in finding.notes for finding in findings)]


def families_of(findings: list[Finding]) -> list[tuple[str, list[Finding]]]:
    """Findings by family, under its name."""
    names = dict.fromkeys(finding.family for finding in findings)
    return [
        (FAMILIES.get(family, family or "Contrasts"), [finding for finding in findings if finding.family == family])
        for family in names
    ]


def row_of(raw: object, name: str, key: str = "id") -> dict[str, Any]:
    """The row of a list whose ``key`` is ``name``; empty where there is none."""
    return next((row for row in rows(raw) if words(row.get(key)) == name), {})


def significant(row: dict[str, Any]) -> bool:
    """Whether the p after Holm's adjustment is below .05."""
    p = number(row.get("p_adjusted"))
    return p is not None and p < SIGNIFICANT


def spread_sentence(report: Report) -> str:
    """By how much patients and sessions differ, by the mixed model; empty where there is none. With one session of each
    patient and arm, what sessions vary by holds what an arm does for a patient."""
    raw = table(analysis_of(report).get("variances"))
    effect = "what an arm does for a patient"
    sessions = "sessions" if number(raw.get("by_arm")) is not None else f"sessions together with {effect}"
    named = [("patients", "patients"), (effect, "by_arm"), (sessions, "residual")]
    variances = [(name, number(raw.get(key))) for name, key in named]
    parts = [f"{name} {fixed(math.sqrt(value))}" for name, value in variances if value is not None and value >= 0]
    return f"SDs in points, by the mixed model: {', '.join(parts)}." if parts else ""


def length_notes(report: Report) -> list[str]:
    """What the checks of length leave out or could not compute: a line for each check and note, with the contrasts it
    is about. What is noted of a contrast itself is not said again."""
    raw = analysis_of(report)
    length, said = table(raw.get("length")), {words(row.get("id")): notes_of(row) for row in rows(raw.get("contrasts"))}
    checks = [
        ("turns held equal", [(row, [words(row.get("problem"))]) for row in rows(length.get("adjusted"))]),
        *(
            (name, [(row, notes_of(row)) for row in rows(table(length.get(part)).get("contrasts"))])
            for name, part in (("matched on length", "matched"), ("long sessions only", "at_least"))
        ),
    ]
    about: dict[tuple[str, str], list[str]] = {}
    for check, found in checks:
        for row, notes in found:
            name = words(row.get("id"))
            for note in notes:
                if note and note not in said.get(name, ()):
                    about.setdefault((check, note), []).append(name)
    return [f"{check}, {'; '.join(names)}: {note}" for (check, note), names in about.items()]


def notes_of(row: dict[str, Any]) -> list[str]:
    """What is noted of a contrast."""
    notes = row.get("notes")
    return [words(note) for note in notes] if isinstance(notes, list) else []


def _wald(row: dict[str, Any]) -> tuple[Any, Any, Any]:
    return row.get("estimate"), row.get("ci_low"), row.get("ci_high")


def _band(name: str, estimate: object, low: object, high: object) -> Band | None:
    lower, upper = number(low), number(high)
    return None if lower is None or upper is None else Band(name, number(estimate), lower, upper)
