"""Intervals and p values that assume no distribution, with the patient as the unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from cbtrain.eval.analysis.rounding import ROUNDING, merged, size_of

EXACT = 16
"""Patients up to which every assignment of signs is tried: 65,536."""


def in_order(rows: np.ndarray) -> np.ndarray:
    """Return ``rows`` (float ``[rows]`` or ``[rows, columns]``, finite) sorted by what is in them, so that a resample
    does not depend on their order. Values that are equal but for rounding count as equal."""
    values = np.asarray(rows, dtype=np.float64)
    keys = np.atleast_2d(merged(values).T)
    return np.asarray(values[np.lexsort(keys[::-1])])


def groups_in_order(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return ``groups`` (float ``[rows]`` or ``[rows, columns]``, finite) sorted by what is in them, each
    :func:`in_order`: then neither the order of rows nor the names of patients change a resample."""
    values = [np.asarray(group, dtype=np.float64) for group in groups]
    ends = np.cumsum([len(group) for group in values])[:-1]
    keys = [in_order(group).ravel().tolist() for group in np.split(merged(np.concatenate(values)), ends)]
    order = sorted(range(len(values)), key=lambda place: (len(keys[place]), keys[place]))
    return [in_order(values[place]) for place in order]


def hierarchical_bootstrap(
    groups: Sequence[np.ndarray], draws: int = 10_000, seed: int = 0, *, by_patient: bool = True
) -> np.ndarray:
    """Return means of resampled data, float64 ``[draws]``: patients with replacement, then each one's values with
    replacement.

    ``groups`` holds the values (paired differences, say) of each patient, one at least in each. ``by_patient`` gives
    every drawn patient the same weight; without it every drawn value has. The order of ``groups`` and of their values
    does not matter. Raises ValueError on no patients.
    """
    if not groups or not all(len(group) for group in groups):
        raise ValueError("every patient needs a value")
    groups = groups_in_order(groups)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(groups), size=(draws, len(groups)))
    sums, counts = np.empty(chosen.shape), np.empty(chosen.shape)
    for place, group in enumerate(groups):
        here = chosen == place
        size = (int(here.sum()), len(group))
        sums[here] = group[rng.integers(len(group), size=size)].sum(axis=1)
        counts[here] = len(group)
    if by_patient:
        return np.asarray((sums / counts).mean(axis=1))
    return np.asarray(sums.sum(axis=1) / counts.sum(axis=1))


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the middle ``level`` of bootstrap draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_of_alike(ones: bool, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval (Clopper and Pearson 1934) of a share that all (``ones``) or none of ``n`` have.
    They are alike in every resample too, which would pass for certainty."""
    found = stats.binomtest(n if ones else 0, n).proportion_ci()
    return float(found.low), float(found.high)


def sign_flip_p(differences: np.ndarray, draws: int = 100_000, seed: int = 0, size: float = 0.0) -> float:
    """Return the two-sided p of the mean of ``differences`` (float ``[patients]``) if signs are a matter of chance
    (Fisher's randomization). ``size``: of the scores that were subtracted
    (:func:`cbtrain.eval.analysis.rounding.alike`).

    Exact up to 16 patients: then the smallest p there can be is 2 / 2ⁿ. Beyond, ``draws`` random assignments, of which
    the observed one counts as one (Phipson and Smyth 2010). NaN if all differences are zero.
    """
    values = np.asarray(differences, dtype=np.float64)
    least = ROUNDING * max(size, size_of(values))
    values = values[np.abs(values) > least]
    if not len(values):
        return float("nan")
    n, observed = len(values), abs(values.sum())
    near = observed - n * least  # sums that are equal but for the rounding of n numbers count as equal
    if n <= EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ values) >= near).mean())
    rng, values = np.random.default_rng(seed), in_order(values)
    hits = done = 0
    while done < draws:
        batch = min(10_000, draws - done)
        signs = rng.integers(2, size=(batch, n)) * 2 - 1
        hits += int((np.abs(signs @ values) >= near).sum())
        done += batch
    return (hits + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979) in the order given. A NaN stays one and counts for nothing."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p == p)
    adjusted = [float("nan")] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[place] = highest
    return adjusted
