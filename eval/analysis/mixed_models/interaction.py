"""Whether tuning changes bases by different amounts, with the patient as the unit.

Each patient has a gain with each base. Whether gains differ between bases is a test on the vectors of the patients'
differences from the first base: Hotelling's T² (1931), which takes them as they vary and vary together. A
likelihood-ratio test of base × variant in a mixed model without patient-by-base effects takes sessions for independent,
and calls far too many differences with few patients; it is not given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cbtrain.eval.analysis.agreement.severity import judged_means
from cbtrain.eval.analysis.contrasts import Plan, paired_differences
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import alike, nought, size_of


@dataclass(frozen=True, slots=True)
class Interaction:
    """``statistic`` is F with ``df`` degrees of freedom, over ``patients`` who have pairs with every base. ``sizes``:
    of each base, how far its gain lies above that of ``reference``, in points; ``intervals``: 95 % t intervals of those
    that are not the same with all patients."""

    statistic: float
    df: tuple[int, int]
    p: float
    patients: int
    reference: str
    sizes: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    problem: str


def interaction(ratings: Ratings, plans: list[Plan]) -> Interaction | None:
    """From the ``tuning`` contrasts of ``plans``; None if there are fewer than two."""
    gains, judged, size = {}, judged_means(ratings, ratings.total), size_of(ratings.total)
    changes = [plan for plan in plans if plan.family == "tuning"]
    bases = [plan.id.rpartition(":")[0] for plan in changes]
    if "" in bases or len(set(bases)) < len(bases):  # two variants of a base, or names that tell no base
        bases = [plan.id for plan in changes]
    for base, plan in zip(bases, changes, strict=True):
        differences, _ = paired_differences(judged, plan)
        gains[base] = {patient: float(own.mean()) for patient, own in differences.items()}
    if len(gains) < 2:
        return None
    reference, *others = gains
    patients = sorted(set.intersection(*(set(own) for own in gains.values())))
    n, k = len(patients), len(others)
    beyond = np.array([[gains[base][p] - gains[reference][p] for base in others] for p in patients]).reshape(n, k)
    sizes = {base: float(beyond[:, place].mean()) for place, base in enumerate(others)} if n else {}
    varying = [place for place in range(k) if n > 1 and not alike(beyond[:, place], size)]
    intervals = {others[place]: _interval(beyond[:, place]) for place in varying}

    def gap(problem: str) -> Interaction:
        return Interaction(math.nan, (k, max(n - k, 0)), math.nan, n, reference, sizes, intervals, problem)

    if n <= k:
        return gap(f"{n} patients have pairs with every base, and the test takes {k + 1} at least")
    if len(varying) < k:
        return gap("the patients' differences do not vary enough")
    mean = beyond.mean(axis=0)
    _, lengths, axes = np.linalg.svd(beyond - mean, full_matrices=False)
    if nought(lengths.min(), math.sqrt(n) * size):
        return gap("the patients' differences do not vary enough")
    squared = n * (n - 1) * float(((axes @ mean / lengths) ** 2).sum())
    statistic = (n - k) / ((n - 1) * k) * squared
    p = float(stats.f.sf(statistic, k, n - k))
    return Interaction(statistic, (k, n - k), p, n, reference, sizes, intervals, "")


def _interval(values: np.ndarray) -> tuple[float, float]:
    margin = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return float(values.mean()) - margin, float(values.mean()) + margin
