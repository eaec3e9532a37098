"""Verdicts on a rater from shifts of scores: whether they are those of a fair rater."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cbtrain.eval.analysis.resampling import hierarchical_bootstrap, percentile_interval
from cbtrain.eval.analysis.rounding import at_least, at_most, size_of
from cbtrain.eval.judge_audit.probes import Expected
from cbtrain.eval.rating.scores import Status

DRAWS = 10_000
FEWEST_PATIENTS = 5
"""With fewer, a bootstrap over patients gives an interval that is far too narrow: none is given."""

Verdict = Literal["as expected", "not as expected", "cannot be told"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The shift of one measure from the originals to the copies, in points: means over ``sessions``, and a 95 %
    bootstrap interval over patients and their sessions. None marks a value that could not be computed, or a measure
    without an expectation. ``margin``: smaller shifts count as no shift."""

    measure: str
    expected: Expected | None
    sessions: int
    patients: int
    before: float | None = None
    after: float | None = None
    shift: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    margin: float | None = None
    verdict: Verdict | None = None


def shift(
    measure: str, expected: Expected | None, pairs: Sequence[tuple[str, float, float]], margin: float, seed: int = 0
) -> Finding:
    """Return the finding on ``pairs``: patient, value before and value after, of each session that has both."""
    groups: dict[str, list[float]] = defaultdict(list)
    for patient, *values in pairs:
        groups[patient].append(values[1] - values[0])
    if not pairs:
        return Finding(
            measure=measure,
            expected=expected,
            sessions=0,
            patients=0,
            margin=margin,
            verdict="cannot be told" if expected else None,
        )
    before, after = (float(np.mean([pair[column] for pair in pairs])) for column in (1, 2))
    finding = Finding(
        measure=measure,
        expected=expected,
        sessions=len(pairs),
        patients=len(groups),
        before=before,
        after=after,
        shift=after - before,
        margin=margin,
    )
    if len(groups) < FEWEST_PATIENTS:
        return replace(finding, verdict="cannot be told" if expected else None)
    draws = hierarchical_bootstrap([np.array(shifts) for shifts in groups.values()], DRAWS, seed, by_patient=False)
    low, high = percentile_interval(draws)
    size = size_of(np.array([pair[1:] for pair in pairs]))
    verdict = _verdict(expected, after - before, low, high, margin, size) if expected else None
    return replace(finding, ci_low=low, ci_high=high, verdict=verdict)


def _verdict(expected: Expected, mean: float, low: float, high: float, margin: float, size: float) -> Verdict:
    """Return the verdict on an interval from ``low`` to ``high`` of shifts with this ``mean``.

    ``same`` is as expected if the whole interval lies within the margin, not as expected if all of it lies outside.
    ``falls`` is as expected if the whole interval lies below 0 and the mean at least ``margin`` below, not as expected
    if no part of the interval reaches that far down. Comparisons allow for rounding; ``size``: the largest value that
    shifts were computed from.
    """
    if expected == "same":
        if at_least(low, -margin, size) and at_most(high, margin, size):
            return "as expected"
        outside = not at_most(low, margin, size) or not at_least(high, -margin, size)
        return "not as expected" if outside else "cannot be told"
    if not at_least(high, 0, size) and at_most(mean, -margin, size):
        return "as expected"
    return "not as expected" if not at_most(low, -margin, size) else "cannot be told"


def unratable(statuses: Mapping[Status, int], sessions: int, patients: int) -> Finding:
    """Return the finding on copies that cannot be rated, from the ``statuses`` of their ratings. One rating with scores
    is not as expected; a failed answer (``error``) is no evidence."""
    verdict: Verdict = "cannot be told"
    if statuses.get("ok"):
        verdict = "not as expected"
    elif statuses.get("unratable") and set(statuses) == {"unratable"}:
        verdict = "as expected"
    return Finding(measure="status", expected="unratable", sessions=sessions, patients=patients, verdict=verdict)
