"""The result in a sentence, no stronger than its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cbtrain.eval.analysis.arms import UNTUNED
from cbtrain.eval.report.formatting import SIGNIFICANT, counted, fixed, p_value, percent, span, whole
from cbtrain.eval.report.notable import row_of, significant
from cbtrain.eval.report.schema.estimates import ContrastRow, EstimateRow
from cbtrain.eval.report.schema.report import Report

NAMED = 4
"""Most differences that a headline names; of more it gives the number."""


@dataclass(frozen=True, slots=True)
class Claim:
    """``sentence`` is the headline, ``basis`` its patients and method (may be empty)."""

    sentence: str
    basis: str


def claim_of(report: Report) -> Claim:
    """Return what the first family of planned contrasts shows."""
    contrasts = report.analysis.contrasts
    family = [row for row in contrasts if row.family == contrasts[0].family]
    estimated = [row for row in family if row.estimate is not None]
    if not estimated:
        why = "; ".join(contrasts[0].notes) if contrasts else ""
        return Claim("No difference between the therapists could be computed.", why)
    sentence = _one(report, estimated[0]) if len(family) == 1 else _several(report, estimated)
    smoke_test = "Smoke test: " if report.rater.kind == "cue" else ""
    return Claim(smoke_test + sentence, _basis(estimated))


def perplexity_sentence(report: Report) -> str:
    """Return how training changed the perplexity of held-out therapist turns; empty if it was not measured."""
    perplexity = report.perplexity
    if perplexity is None or perplexity.mean_change_percent is None:
        return ""
    change = perplexity.mean_change_percent
    moved = f"{'fell' if change < 0 else 'rose'} by {percent(abs(change))}" if change else "did not change"
    patients = counted(len(perplexity.patients), "held-out patient")
    return f"Perplexity of the therapist's words {moved} on average over {patients}."


def bounds_text(row: EstimateRow, digits: int = 2) -> str:
    """Return the interval, or why there is none if the patients' differences are equal."""
    if not has_interval(row) and row.se == 0:
        return "the same with every patient"
    return span(row.ci_low, row.ci_high, digits)


def has_interval(row: EstimateRow) -> bool:
    """Return whether both ends are known. One patient's difference has no interval, and differences that are the same
    with all patients have none."""
    return row.ci_low is not None and row.ci_high is not None


def is_settled(row: ContrastRow, *, alone: bool = True) -> bool:
    """Return whether the interval leaves out zero; among several contrasts, the adjusted p has to be small too. If all
    patients differ by the same amount, only the sign-flip test can settle anything."""
    if row.ci_low is None or row.ci_high is None:
        return alone and row.se == 0 and row.p_sign_flip is not None and row.p_sign_flip < SIGNIFICANT
    return not row.ci_low <= 0 <= row.ci_high and (alone or significant(row))


def _one(report: Report, contrast: ContrastRow) -> str:
    scale, estimate = report.scale, contrast.estimate or 0.0
    frame = [] if scale.total_high is None else [f"scale {whole(scale.total_low)} to {whole(scale.total_high)}"]
    if has_interval(contrast):
        frame.insert(0, f"95 % interval {bounds_text(contrast)}")
    framed = f" ({'; '.join(frame)})" if frame else ""
    size, signed = fixed(abs(estimate)), fixed(estimate, signed=True)
    points = "point" if size == "1.00" else "points"
    settled = is_settled(contrast)
    pair = _pair(report, contrast)
    if pair is None:
        text = f"{contrast.id or 'Contrast'}: {signed} {points}{framed}"
        if not has_interval(contrast):
            return f"{text}; no interval can be given."
        return f"{text}." if settled else f"{text}; no difference is shown."
    if settled:
        always = "" if has_interval(contrast) else " with every patient"
        way = "higher" if estimate > 0 else "lower"
        return f"{pair[0]} scored {size} {points} {way} than {pair[1]}{always}{framed}."
    if not has_interval(contrast):
        what = f"{signed} {points}{framed}, and no interval can be given"
        return f"No difference can be shown between {pair[0]} and {pair[1]}: {what}."
    return f"No difference is shown between {pair[0]} and {pair[1]}: {signed} {points}{framed}."


def _several(report: Report, contrasts: Sequence[ContrastRow]) -> str:
    """Return all contrasts of a family in a sentence or two: those that are shown, then those that are not."""
    tuning = all(_is_tuning(report, row) for row in contrasts)
    shown = [row for row in contrasts if is_settled(row, alone=False)]
    higher = [row for row in shown if (row.estimate or 0) > 0]
    lower = [row for row in shown if row not in higher]
    open_ = [row for row in contrasts if has_interval(row) and row not in shown]
    without_interval = [row for row in contrasts if not has_interval(row)]
    parts = []

    bases = [_base(row) for row in contrasts]
    tuning = tuning and len(set(bases)) == len(bases)  # two variants of a base are named whole

    def name(contrast: ContrastRow) -> str:
        return _base(contrast) if tuning else contrast.id

    if tuning:
        for rows, way in ((higher, "higher"), (lower, "lower")):
            listed = ", ".join(f"{_base(row)} by {_size(row, signed=False)}" for row in rows)
            parts += [f"Tuned models scored {way} than untuned ones: {listed} points (95 % intervals)"] if rows else []
    elif shown:
        largest = sorted(higher + lower, key=lambda row: -abs(row.estimate or 0.0))
        listed = "; ".join(f"{row.id} {_size(row)}" for row in largest[:NAMED])
        count = f"{len(shown)} of {len(contrasts)} differences hold after Holm, the largest: "
        parts.append(f"{count if len(shown) > NAMED else ''}{listed} points (95 % intervals)")
    if open_ and len(open_) > NAMED:
        parts.append(f"No difference is shown for {len(open_)} of {len(contrasts)}")
    elif open_:
        parts.append(f"No difference is shown for {'; '.join(f'{name(row)} {_size(row)}' for row in open_)}")
    if without_interval:
        listed = ", ".join(f"{name(row)} {fixed(row.estimate, signed=True)}" for row in without_interval[:NAMED])
        more = f" and {len(without_interval) - NAMED} more" if len(without_interval) > NAMED else ""
        parts.append(f"No interval can be given for {listed}{more}")
    return f"{'. '.join(parts)}."


def _is_tuning(report: Report, contrast: ContrastRow) -> bool:
    """Return whether a contrast is tuned − untuned. An arm that is called neither may have a declared reference, and is
    then in the family ``tuning`` too."""
    variants = {arm.name: arm.variant for arm in report.analysis.arms}
    plan = row_of(report.analysis.plan, contrast.id)
    pairs = [pair for pair in plan.pairs if len(pair) == 2] if plan else []
    known = [(variants[a], variants[b]) for a, b in pairs if a in variants and b in variants]
    return contrast.family == "tuning" and all(a == "tuned" and b in UNTUNED for a, b in known)


def _base(contrast: ContrastRow) -> str:
    """Return the base in an id like ``Llama: tuned − instruct``."""
    return contrast.id.rpartition(":")[0] or contrast.id


def _size(contrast: ContrastRow, signed: bool = True) -> str:
    estimate = contrast.estimate or 0.0
    if signed:
        return f"{fixed(estimate, signed=True)} ({bounds_text(contrast)})"
    ends = [abs(end or 0.0) for end in (contrast.ci_low, contrast.ci_high)]
    return f"{fixed(abs(estimate))} ({span(min(ends), max(ends))})"


def _pair(report: Report, contrast: ContrastRow) -> tuple[str, str] | None:
    """Return the labels of the two arms that a contrast compares, the first minus the second."""
    labels = {arm.name: arm.label for arm in report.arms}
    for plan in report.analysis.plan:
        if plan.id == contrast.id and len(plan.pairs) == 1 and len(plan.pairs[0]) == 2:
            first, second = (labels.get(name) for name in plan.pairs[0])
            if first and second:
                return first, second
    return None


def _basis(contrasts: Sequence[ContrastRow]) -> str:
    first = contrasts[0]
    patients = len({patient for row in contrasts for patient in row.patients})
    p = first.p if len(contrasts) == 1 else None
    signs = first.p_sign_flip if len(contrasts) == 1 and not has_interval(first) else None
    notes = list(dict.fromkeys(note for row in contrasts for note in row.notes))
    parts = [
        counted(patients, "simulated patient") if patients else "",
        "" if p is None else f"p {p_value(p)}",
        "" if signs is None else f"p of a sign-flip test {p_value(signs)}",
        first.method,
        "p adjusted by Holm" if len(contrasts) > 1 else "",
        *notes,
    ]
    return "; ".join(part for part in parts if part)
