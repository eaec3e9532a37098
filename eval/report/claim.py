"""The result in a sentence, no stronger than its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cbtrain.eval.report.formatting import counted, fixed, number, p_value, percent, span, whole
from cbtrain.eval.report.notable import SIGNIFICANT, analysis_of, notes_of, significant
from cbtrain.eval.report.shape import Report, arms_of, rows, scale_of, table, words

NAMED = 4
"""Differences that a headline names; of more it gives the number."""


@dataclass(frozen=True, slots=True)
class Claim:
    """``sentence`` is the headline, ``basis`` what it rests on (patients, method; may be empty)."""

    sentence: str
    basis: str


def claim_of(report: Report) -> Claim:
    """What the first family of planned contrasts shows."""
    contrasts = contrasts_of(report)
    family = [one for one in contrasts if one.get("family") == contrasts[0].get("family")]
    given = [one for one in family if number(one.get("estimate")) is not None]
    if not given:
        why = "; ".join(notes_of(contrasts[0])) if contrasts else ""
        return Claim("No difference between the therapists could be computed.", why)
    counted = words(table(report.get("rater")).get("kind")) == "cue"
    sentence = _one(report, given[0]) if len(family) == 1 else _several(report, given)
    return Claim(("Smoke test: " if counted else "") + sentence, _basis(given))


def contrasts_of(report: Report) -> list[dict[str, Any]]:
    """The planned contrasts on the total, the primary ones first."""
    return rows(analysis_of(report).get("contrasts"))


def perplexity_sentence(report: Report) -> str:
    """What training did to held-out therapist turns; empty where it was not measured."""
    raw = table(report.get("perplexity"))
    change = number(raw.get("mean_change_percent"))
    if change is None:
        return ""
    moved = f"{'fell' if change < 0 else 'rose'} by {percent(abs(change))}" if change else "did not change"
    patients = counted(len(rows(raw.get("patients"))), "held-out patient")
    return f"Perplexity of the therapist's words {moved} on average over {patients}."


def bounds_text(contrast: dict[str, Any], digits: int = 1) -> str:
    """The interval, or why there is none where patients' differences are equal."""
    if not has_interval(contrast) and number(contrast.get("se")) == 0:
        return "the same with every patient"
    return span(contrast.get("ci_low"), contrast.get("ci_high"), digits)


def has_interval(contrast: dict[str, Any]) -> bool:
    """One patient's difference has none, and differences that are the same with all patients have none."""
    return number(contrast.get("ci_low")) is not None and number(contrast.get("ci_high")) is not None


def is_settled(contrast: dict[str, Any], alone: bool = True) -> bool:
    """Whether its interval leaves zero out; among several, its adjusted p has to say so too. Of patients who all differ
    by the same only the signs, if they are many, settle anything."""
    low, high = number(contrast.get("ci_low")), number(contrast.get("ci_high"))
    if low is None or high is None:
        signs = number(contrast.get("p_sign_flip"))
        return alone and number(contrast.get("se")) == 0 and signs is not None and signs < SIGNIFICANT
    return not low <= 0 <= high and (alone or significant(contrast))


def _one(report: Report, contrast: dict[str, Any]) -> str:
    scale, estimate = scale_of(report), number(contrast.get("estimate")) or 0.0
    frame = [] if scale.total_high is None else [f"scale {whole(scale.total_low)} to {whole(scale.total_high)}"]
    if has_interval(contrast):
        frame.insert(0, f"95% interval {bounds_text(contrast)}")
    framed = f" ({'; '.join(frame)})" if frame else ""
    size, signed = fixed(abs(estimate)), fixed(estimate, signed=True)
    points = "point" if size == "1.0" else "points"
    pair = _pair(report, contrast)
    if pair is None:
        text = f"{words(contrast.get('id')) or 'Contrast'}: {signed} {points}{framed}"
        if not has_interval(contrast):
            return f"{text}; no interval can be given."
        return f"{text}." if is_settled(contrast) else f"{text}; no difference is shown."
    if is_settled(contrast):
        always = "" if has_interval(contrast) else " with every patient"
        way = "higher" if estimate > 0 else "lower"
        return f"{pair[0]} scored {size} {points} {way} than {pair[1]}{always}{framed}."
    if not has_interval(contrast):
        what = f"{signed} {points}{framed}, and no interval can be given"
        return f"No difference can be shown between {pair[0]} and {pair[1]}: {what}."
    return f"No difference is shown between {pair[0]} and {pair[1]}: {signed} {points}{framed}."


def _several(report: Report, contrasts: list[dict[str, Any]]) -> str:
    """All contrasts of a family in a sentence or two: those that are shown, then those that are not."""
    tuning = all(words(one.get("family")) == "tuning" for one in contrasts)
    higher = [one for one in contrasts if is_settled(one, alone=False) and (number(one.get("estimate")) or 0) > 0]
    lower = [one for one in contrasts if is_settled(one, alone=False) and one not in higher]
    open_ = [one for one in contrasts if has_interval(one) and not is_settled(one, alone=False)]
    bare = [one for one in contrasts if not has_interval(one)]
    parts = []

    def named(contrast: dict[str, Any]) -> str:
        return _base(contrast) if tuning else words(contrast.get("id"))

    if tuning:
        for shown, way in ((higher, "higher"), (lower, "lower")):
            listed = ", ".join(f"{_base(one)} by {_size(one, signed=False)}" for one in shown)
            parts += [f"Tuned models scored {way} than untuned ones: {listed} points (95% intervals)"] if shown else []
    elif higher or lower:
        shown = sorted(higher + lower, key=lambda one: -abs(number(one.get("estimate")) or 0.0))
        listed = "; ".join(f"{words(one.get('id'))} {_size(one)}" for one in shown[:NAMED])
        count = (
            f"{len(shown)} of {len(contrasts)} differences hold after Holm, the largest: " if len(shown) > NAMED else ""
        )
        parts.append(f"{count}{listed} points (95% intervals)")
    if open_ and len(open_) > NAMED:
        parts.append(f"No difference is shown for {len(open_)} of {len(contrasts)}")
    elif open_:
        listed = "; ".join(f"{named(one)} {_size(one)}" for one in open_)
        parts.append(f"No difference is shown for {listed}")
    if bare:
        listed = ", ".join(f"{named(one)} {fixed(one.get('estimate'), signed=True)}" for one in bare[:NAMED])
        more = f" and {len(bare) - NAMED} more" if len(bare) > NAMED else ""
        parts.append(f"No interval can be given for {listed}{more}")
    return f"{'. '.join(parts)}."


def _base(contrast: dict[str, Any]) -> str:
    """The base in an id like ``Llama: tuned − instruct``."""
    return words(contrast.get("id")).rpartition(":")[0] or words(contrast.get("id"))


def _size(contrast: dict[str, Any], signed: bool = True) -> str:
    estimate = number(contrast.get("estimate")) or 0.0
    if signed:
        return f"{fixed(estimate, signed=True)} ({bounds_text(contrast)})"
    ends = [abs(number(contrast.get(end)) or 0.0) for end in ("ci_low", "ci_high")]
    return f"{fixed(abs(estimate))} ({span(min(ends), max(ends), 1)})"


def _pair(report: Report, contrast: dict[str, Any]) -> tuple[str, str] | None:
    """Labels of the two arms that a contrast compares, the first minus the second."""
    for plan in rows(analysis_of(report).get("plan")):
        pairs = plan.get("pairs")
        if plan.get("id") == contrast.get("id") and isinstance(pairs, list) and len(pairs) == 1:
            labels = {arm["name"]: arm["label"] for arm in arms_of(report)}
            named = [labels.get(words(name)) for name in pairs[0]] if isinstance(pairs[0], list) else []
            if len(named) == 2 and named[0] and named[1]:
                return named[0], named[1]
    return None


def _basis(contrasts: list[dict[str, Any]]) -> str:
    first = contrasts[0]
    patients = len({patient for one in contrasts for patient in table(one.get("patients"))})
    p = number(first.get("p")) if len(contrasts) == 1 else None
    signs = number(first.get("p_sign_flip")) if len(contrasts) == 1 and not has_interval(first) else None
    notes = list(dict.fromkeys(note for one in contrasts for note in notes_of(one)))
    parts = [
        counted(patients, "simulated patient") if patients else "",
        "" if p is None else f"p {p_value(p)}",
        "" if signs is None else f"p of a sign-flip test {p_value(signs)}",
        words(first.get("method")),
        "p adjusted by Holm" if len(contrasts) > 1 else "",
        *notes,
    ]
    return "; ".join(part for part in parts if part)
