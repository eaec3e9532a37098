"""Verdicts on a judge from shifts of scores: those of a fair judge or not, as far as the sessions can tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from cbtrain.eval.analysis.rounding import at_least, at_most, size_of
from cbtrain.eval.judge_audit.probes import Expected
from cbtrain.eval.rating.scores import Status

Verdict = Literal["as expected", "not as expected", "cannot be told"]
VERDICTS: tuple[Verdict, ...] = ("as expected", "not as expected", "cannot be told")

AS_EXPECTED, NOT_EXPECTED, UNTOLD = VERDICTS

ROOM = 2.0
"""Margins between a measure and the end of its scale without which a move towards that end would not be seen."""

Unit = Literal["patients", "sessions of one patient", ""]


@dataclass(frozen=True, slots=True)
class Scale:
    """Of one measure: its ends, and the SD of a shift that comes from scores having steps."""

    low: float
    high: float
    rounding: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % t interval; ``unit``: over what, "" if there is none."""

    low: float | None = None
    high: float | None = None
    unit: Unit = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The shift of one measure from the originals to the copies, in points, as means over ``sessions``; or the
    ``value`` of a measure that is no shift. The interval is of either. None marks what could not be computed, or a
    measure without an expectation. ``margin``: a smaller shift counts as none, a smaller value as small. ``no_room``:
    sessions that were left out, too near an end of the scale for the move that is looked for."""

    measure: str
    expected: Expected | None
    sessions: int
    patients: int
    before: float | None = None
    after: float | None = None
    shift: float | None = None
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    unit: Unit = ""
    margin: float | None = None
    no_room: int = 0
    per_100_words: float | None = None
    verdict: Verdict | None = None
    why: str = ""


def interval_of(values: Iterable[tuple[str, float]], rounding: float = 0.0) -> Interval:
    """Return the interval of the mean of ``values`` (patient, value).

    Over patients: the error is robust to clusters (CR1), with t of one less than patients; over sessions if there is
    only one patient: then it says nothing of others. Nothing of one session. ``rounding``: SD of a value that scores in
    steps bring along; a few equal values do not show that there is no difference at all.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for patient, value in values:
        groups[patient].append(value)
    numbers = [value for group in groups.values() for value in group]
    if len(numbers) < 2:
        return Interval()
    unit: Unit = "patients" if len(groups) > 1 else "sessions of one patient"
    clusters = list(groups.values()) if len(groups) > 1 else [[value] for value in numbers]
    mean, count = float(np.mean(numbers)), len(clusters)
    sums = np.array([np.sum(np.array(cluster) - mean) for cluster in clusters])
    variance = count / (count - 1) * float(sums @ sums) / len(numbers) ** 2
    half = float(stats.t.ppf(0.975, count - 1)) * np.sqrt(max(variance, rounding**2 / len(numbers)))
    return Interval(mean - float(half), mean + float(half), unit)


def shift(
    measure: str,
    expected: Expected | None,
    pairs: Sequence[tuple[str, float, float]],
    margin: float,
    scale: Scale | None = None,
) -> Finding:
    """Return the finding on ``pairs``: patient, value before and value after, of each session that has both."""
    sessions, patients = len(pairs), len({patient for patient, *_ in pairs})
    if not pairs:
        verdict = UNTOLD if expected else None
        return Finding(
            measure=measure, expected=expected, sessions=0, patients=0, margin=margin, verdict=verdict, why="no copies"
        )
    before, after = (float(np.mean([pair[column] for pair in pairs])) for column in (1, 2))
    interval = interval_of(((patient, two - one) for patient, one, two in pairs), scale.rounding if scale else 0.0)
    size = size_of(np.array([pair[1:] for pair in pairs]))
    verdict, why = _verdict(expected, after - before, interval, margin, size) if expected else (None, "")
    if expected and scale and (near := too_near(expected, before, margin, scale)) and verdict != _seen(expected):
        verdict, why = UNTOLD, near
    return Finding(
        measure=measure,
        expected=expected,
        sessions=sessions,
        patients=patients,
        before=before,
        after=after,
        shift=after - before,
        ci_low=interval.low,
        ci_high=interval.high,
        unit=interval.unit,
        margin=margin,
        verdict=verdict,
        why=why,
    )


def _verdict(expected: Expected, mean: float, interval: Interval, margin: float, size: float) -> tuple[Verdict, str]:
    """Return the verdict on shifts with this ``mean`` and ``interval``, and why there is none.

    ``same``, ``no rise`` and ``no fall`` are as expected if the whole interval lies within the margin (on the side that
    counts), not as expected if all of it lies outside. ``falls`` is as expected if the whole interval lies below 0 and
    the mean at least ``margin`` below, not as expected if no part of the interval reaches that far down. Comparisons
    allow for rounding; ``size``: the largest value that shifts were computed from.
    """
    low, high = interval.low, interval.high
    if low is None or high is None:
        return UNTOLD, "one session has no interval"
    if interval.unit != "patients":
        return UNTOLD, "one patient says nothing of others"
    if expected == "falls":
        if not at_least(high, 0, size) and at_most(mean, -margin, size):
            return AS_EXPECTED, ""
        return (UNTOLD, WIDE) if at_most(low, -margin, size) else (NOT_EXPECTED, "")
    rises, sinks = expected in ("same", "no rise"), expected in ("same", "no fall")
    if (not rises or at_most(high, margin, size)) and (not sinks or at_least(low, -margin, size)):
        return AS_EXPECTED, ""
    outside = (rises and not at_most(low, margin, size)) or (sinks and not at_least(high, -margin, size))
    return (NOT_EXPECTED, "") if outside else (UNTOLD, WIDE)


WIDE = "the interval holds both answers"


def too_near(expected: Expected, before: float, margin: float, scale: Scale) -> str:
    """Return why a move that is looked for could not be seen; an empty text if it could."""
    if expected in ("falls", "no fall") and not at_least(before - scale.low, ROOM * margin):
        return "too near the bottom of the scale to fall"
    if expected == "no rise" and not at_least(scale.high - before, ROOM * margin):
        return "too near the top of the scale to rise"
    return ""


def _seen(expected: Expected) -> Verdict:
    """Return the verdict on a move that was seen: near the end of a scale only that is evidence."""
    return AS_EXPECTED if expected == "falls" else NOT_EXPECTED


def unratable(statuses: Mapping[Status, int], sessions: int, patients: int) -> Finding:
    """Return the finding on copies that cannot be rated, from the ``statuses`` of their ratings. One rating with scores
    is not as expected; a failed answer (``error``) is no evidence."""
    verdict: Verdict = UNTOLD
    if statuses.get("ok"):
        verdict = NOT_EXPECTED
    elif statuses.get("unratable") and set(statuses) == {"unratable"}:
        verdict = AS_EXPECTED
    return Finding(measure="status", expected="unratable", sessions=sessions, patients=patients, verdict=verdict)


def together(verdicts: Iterable[Verdict | None]) -> Verdict:
    """Return one verdict for several findings: a single one that is not as expected counts."""
    known = [verdict for verdict in verdicts if verdict]
    if NOT_EXPECTED in known:
        return NOT_EXPECTED
    return AS_EXPECTED if known and UNTOLD not in known else UNTOLD
