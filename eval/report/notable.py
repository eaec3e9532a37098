"""The contrasts of a report, one by one: the primary numbers, and the other methods that check them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cbtrain.eval.report.formatting import SIGNIFICANT, fixed
from cbtrain.eval.report.schema.analysis import Analysis, BoundsRow, LengthPart, ModelRow
from cbtrain.eval.report.schema.estimates import ContrastRow, EstimateRow
from cbtrain.eval.report.schema.fields import Part, words

FAMILIES = {
    "tuning": "Tuned against untuned, by base",
    "placebo": "Tuned against placebo, placebo against untuned",
    "variants": "Other variants, by base",
    "pooled": "Averaged over bases",
    "tuned": "Tuned against tuned",
    "reference": "Every therapist against the reference",
    "arms": "Pairs of therapists",
}
"""Names of the families of contrasts; p is adjusted inside each family (Holm)."""

MANY = 8
"""With more contrasts than this, figures and wide tables show the primary numbers only; other tables have the rest."""

RowT = TypeVar("RowT", bound=Part)


@dataclass(frozen=True, slots=True)
class Band:
    """The interval of another method; ``estimate`` is None if the method gives no estimate of its own."""

    name: str
    estimate: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One contrast, in points. ``row`` is its row in ``analysis.contrasts``; ``patients``: mean difference of each;
    ``bands``: bootstrap, mixed model, sensitivities, in a fixed order, only those that were computed."""

    id: str
    family: str
    estimate: float | None
    low: float | None
    high: float | None
    patients: dict[str, float]
    bands: tuple[Band, ...]
    notes: tuple[str, ...]
    row: ContrastRow

    @property
    def count(self) -> int | None:
        """Return the number of patients; None if the report does not name them."""
        return len(self.patients) or None


def findings_of(analysis: Analysis) -> list[Finding]:
    """Return every contrast in the order of ``analysis``, with the rows of its other parts that have the same id."""
    length = analysis.length or LengthPart()
    turns = "?" if length.at_least.turns is None else words(length.at_least.turns)
    methods: list[tuple[str, Sequence[ContrastRow | ModelRow]]] = [
        ("mixed model", analysis.mixed_models),
        ("ln(turns)", length.adjusted),
        ("matched", length.matched.contrasts),
        (f"≥ {turns} turns", length.at_least.contrasts),
    ]
    findings = []
    for row in analysis.contrasts:
        others = [(name, row_of(rows, row.id)) for name, rows in methods]
        worst = row_of(analysis.bounds, row.id) or BoundsRow()
        bands = [
            _band("bootstrap", None, row.bootstrap_low, row.bootstrap_high),
            *(_band(name, other.estimate, other.ci_low, other.ci_high) for name, other in others if other),
            _band("worst case", None, worst.worst_low, worst.worst_high),
        ]
        findings.append(
            Finding(
                id=row.id or "contrast",
                family=row.family,
                estimate=row.estimate,
                low=row.ci_low,
                high=row.ci_high,
                patients={
                    patient: difference for patient, difference in row.patients.items() if difference is not None
                },
                bands=tuple(band for band in bands if band),
                notes=tuple(row.notes),
                row=row,
            )
        )
    return findings


def shared_notes(findings: list[Finding]) -> list[str]:
    """Return the notes that all of several contrasts have: they are shown once."""
    if len(findings) < 2:
        return []
    return [note for note in findings[0].notes if all(note in finding.notes for finding in findings)]


def families_of(findings: list[Finding]) -> list[tuple[str, list[Finding]]]:
    """Return the findings of each family, with its name."""
    names = dict.fromkeys(finding.family for finding in findings)
    return [
        (FAMILIES.get(family, family or "Contrasts"), [finding for finding in findings if finding.family == family])
        for family in names
    ]


def row_of(rows: Iterable[RowT], name: str, key: str = "id") -> RowT | None:
    """Return the first of ``rows`` whose field ``key`` is ``name``, or None."""
    return next((row for row in rows if getattr(row, key) == name), None)


def significant(row: EstimateRow | None) -> bool:
    """Return whether the p after Holm's adjustment is below .05."""
    return row is not None and row.p_adjusted is not None and row.p_adjusted < SIGNIFICANT


def spread_sentence(analysis: Analysis) -> str:
    """Return by how much patients and sessions differ, by the mixed model; empty if there is none. With one session of
    each patient and arm, the variance of sessions contains what an arm does for a patient."""
    variances = analysis.variances
    if variances is None:
        return ""
    effect = "what an arm does for a patient"
    sessions = "sessions" if variances.by_arm is not None else f"sessions together with {effect}"
    named = [("patients", variances.patients), (effect, variances.by_arm), (sessions, variances.residual)]
    parts = [f"{name} {fixed(math.sqrt(value))}" for name, value in named if value is not None and value >= 0]
    return f"SDs in points, by the mixed model: {', '.join(parts)}." if parts else ""


def length_notes(analysis: Analysis) -> list[str]:
    """Return a line for each check of length and each note: what the check leaves out or could not compute, and for
    which contrasts. Notes on a contrast itself are not repeated."""
    length = analysis.length or LengthPart()
    contrast_notes = {row.id: row.notes for row in analysis.contrasts}
    notes = [("turns held equal", row.id, row.problem) for row in length.adjusted]
    for check, rows in (
        ("matched on length", length.matched.contrasts),
        ("long sessions only", length.at_least.contrasts),
    ):
        notes += [(check, row.id, note) for row in rows for note in row.notes]
    contrasts: dict[tuple[str, str], list[str]] = {}
    for check, contrast, note in notes:
        if note and note not in contrast_notes.get(contrast, ()):
            contrasts.setdefault((check, note), []).append(contrast)
    return [f"{check}, {'; '.join(names)}: {note}" for (check, note), names in contrasts.items()]


def _band(name: str, estimate: float | None, low: float | None, high: float | None) -> Band | None:
    return None if low is None or high is None else Band(name, estimate, low, high)
