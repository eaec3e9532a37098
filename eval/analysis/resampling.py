"""Intervals and p values without an assumed distribution, with the patient as the unit; adjustments of p."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from cbtrain.eval.analysis.rounding import ROUNDING, merged, size_of

EXACT = 16
"""Most patients for which the sign-flip test tries every assignment of signs (65,536)."""


def in_order(rows: np.ndarray) -> np.ndarray:
    """Return ``rows`` (float ``[rows]`` or ``[rows, columns]``, finite) sorted by their values, so that a resample does
    not depend on their order. Values that are equal but for rounding count as equal."""
    values = np.asarray(rows, dtype=np.float64)
    keys = np.atleast_2d(merged(values).T)
    return np.asarray(values[np.lexsort(keys[::-1])])


def groups_in_order(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return ``groups`` (float ``[rows]`` or ``[rows, columns]``, finite) sorted by their values, each of them
    :func:`in_order`, so that a resample does not depend on the order of rows or the names of patients."""
    values = [np.asarray(group, dtype=np.float64) for group in groups]
    ends = np.cumsum([len(group) for group in values])[:-1]
    keys = [in_order(group).ravel().tolist() for group in np.split(merged(np.concatenate(values)), ends)]
    order = sorted(range(len(values)), key=lambda index: (len(keys[index]), keys[index]))
    return [in_order(values[index]) for index in order]


def hierarchical_bootstrap(
    groups: Sequence[np.ndarray], draws: int = 10_000, seed: int = 0, *, by_patient: bool = True
) -> np.ndarray:
    """Return the means of bootstrap resamples, float64 ``[draws]``. Patients are drawn with replacement, then each
    patient's values with replacement.

    ``groups``: the values (paired differences, say) of each patient, float ``[values]`` each. ``by_patient``: weight
    every drawn patient equally; otherwise every drawn value. The order of ``groups`` and of their values does not
    matter. Raises ValueError if there is no patient, or one without a value.
    """
    if not groups or not all(len(group) for group in groups):
        raise ValueError("every patient needs a value")
    groups = groups_in_order(groups)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(groups), size=(draws, len(groups)))
    sums, counts = np.empty(chosen.shape), np.empty(chosen.shape)
    for index, group in enumerate(groups):
        drawn = chosen == index
        size = (int(drawn.sum()), len(group))
        sums[drawn] = group[rng.integers(len(group), size=size)].sum(axis=1)
        counts[drawn] = len(group)
    if by_patient:
        return np.asarray((sums / counts).mean(axis=1))
    return np.asarray(sums.sum(axis=1) / counts.sum(axis=1))


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval with this ``level`` of bootstrap ``draws``, float ``[draws]``."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_of_alike(ones: bool, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval (Clopper and Pearson 1934) of a share if all (``ones``) or none of ``n`` count. A
    bootstrap would give an interval of width 0, since all resamples are the same."""
    interval = stats.binomtest(n if ones else 0, n).proportion_ci()
    return float(interval.low), float(interval.high)


def sign_flip_p(differences: np.ndarray, draws: int = 100_000, seed: int = 0, size: float = 0.0) -> float:
    """Return the two-sided p of the mean of ``differences`` (float ``[patients]``) under random signs (Fisher's
    randomization test); NaN if all differences are 0.

    Exact up to ``EXACT`` patients; the smallest possible p is then 2 / 2ⁿ. With more, ``draws`` random assignments, to
    which the observed one is added (Phipson and Smyth 2010). ``size``: largest score that was subtracted
    (:func:`cbtrain.eval.analysis.rounding.alike`).
    """
    values = np.asarray(differences, dtype=np.float64)
    tolerance = ROUNDING * max(size, size_of(values))
    values = values[np.abs(values) > tolerance]
    if not len(values):
        return math.nan
    n = len(values)
    threshold = abs(values.sum()) - n * tolerance  # sums that differ by the rounding of n numbers count as equal
    if n <= EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ values) >= threshold).mean())
    rng = np.random.default_rng(seed)
    values = in_order(values)
    hits = done = 0
    while done < draws:
        batch = min(10_000, draws - done)
        signs = rng.integers(2, size=(batch, n)) * 2 - 1
        hits += int((np.abs(signs @ values) >= threshold).sum())
        done += batch
    return (hits + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return ``p_values``, in their order, after Holm's step-down adjustment (1979). NaN stays NaN and does not count
    as a test."""
    ascending = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(ascending):
        highest = max(highest, min(1.0, p * (len(ascending) - rank)))
        adjusted[index] = highest
    return adjusted


def holm_sidak(p_values: Sequence[float]) -> list[float]:
    """Return ``p_values`` (finite), in their order, after Holm's step-down adjustment with Šidák's inequality (1967) in
    place of Bonferroni's: 1 − (1 − p)^tests, exact also for p far below 1e-16."""
    ascending = sorted((p, index) for index, p in enumerate(p_values))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(ascending):
        tests = len(ascending) - rank
        highest = max(highest, -math.expm1(tests * math.log1p(-p)) if p < 1 else 1.0)
        adjusted[index] = highest
    return adjusted
