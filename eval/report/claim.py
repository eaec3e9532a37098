"""The result in a sentence, no stronger than its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cbtrain.eval.report.shape import Report, arms_of, rows, scale_of, table, words
from cbtrain.eval.report.values import fixed, number, p_value, percent, span, whole


@dataclass(frozen=True, slots=True)
class Claim:
    """``sentence`` is the headline, ``basis`` what it rests on (patients, method; may be empty)."""

    sentence: str
    basis: str


def claim_of(report: Report) -> Claim:
    """The first contrast is the primary one."""
    contrasts = rows(report.get("contrasts"))
    primary = contrasts[0] if contrasts else {}
    estimate = number(primary.get("estimate"))
    if estimate is None:
        return Claim("No difference between the therapists could be computed.", words(primary.get("note")))
    counted = words(table(report.get("rater")).get("kind")) == "cue"
    return Claim(("Smoke test: " if counted else "") + _sentence(report, primary, estimate), _basis(primary))


def perplexity_sentence(report: Report) -> str:
    """What training did to held-out therapist turns; empty where it was not measured."""
    raw = table(report.get("perplexity"))
    change = number(raw.get("mean_change_percent"))
    if change is None:
        return ""
    moved = f"{'fell' if change < 0 else 'rose'} by {percent(abs(change))}" if change else "did not change"
    patients = _counted(len(rows(raw.get("patients"))), "held-out patient")
    return f"Perplexity of the therapist's words {moved} on average over {patients}."


def interval(contrast: dict[str, Any]) -> tuple[float, float] | None:
    low, high = number(contrast.get("ci_low")), number(contrast.get("ci_high"))
    return None if low is None or high is None else (low, high)


def bounds_text(contrast: dict[str, Any], digits: int = 1) -> str:
    return span(contrast.get("ci_low"), contrast.get("ci_high"), digits)


def interval_text(contrast: dict[str, Any]) -> str:
    """``95% interval 2.1 to 10.3``; the level is named only where the report names it (``level``, a share)."""
    level = number(contrast.get("level"))
    kind = "interval" if level is None else f"{100 * level:g}% interval"
    return f"{kind} {bounds_text(contrast)}"


def _sentence(report: Report, contrast: dict[str, Any], estimate: float) -> str:
    scale = scale_of(report)
    frame = "" if scale.total_high is None else f"; scale {whole(scale.total_low)} to {whole(scale.total_high)}"
    frame = f"({interval_text(contrast)}{frame})"
    size, signed = fixed(abs(estimate)), fixed(estimate, signed=True)
    points = "point" if size == "1.0" else "points"
    bounds = interval(contrast)
    # An interval that is a point comes from too few differing patients: it settles nothing.
    settled = bounds is not None and bounds[0] < bounds[1] and (bounds[0] > 0 or bounds[1] < 0)
    pair = _pair(report, contrast)
    if pair is None:
        text = f"{words(contrast.get('id')) or 'Contrast'}: {signed} {points} {frame}"
        return f"{text}." if settled else f"{text}; no difference is shown."
    if settled:
        return f"{pair[0]} scored {size} {points} {'higher' if estimate > 0 else 'lower'} than {pair[1]} {frame}."
    return f"No difference is shown between {pair[0]} and {pair[1]}: {signed} {points} {frame}."


def _pair(report: Report, contrast: dict[str, Any]) -> tuple[str, str] | None:
    """Labels of the two arms that the contrast's id names, the first minus the second (``tuned-base``)."""
    name = words(contrast.get("id"))
    named = [(name.find(arm["name"]), arm["label"]) for arm in arms_of(report) if arm["name"] in name]
    return (sorted(named)[0][1], sorted(named)[1][1]) if len(named) == 2 else None


def _basis(contrast: dict[str, Any]) -> str:
    patients = number(contrast.get("n_patients"))
    parts = [
        "" if patients is None else _counted(int(patients), "simulated patient"),
        "" if number(contrast.get("p")) is None else f"p {p_value(contrast['p'])}",
        words(contrast.get("method")),
        words(contrast.get("note")),
    ]
    return "; ".join(part for part in parts if part)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
