"""Whether a difference between two arms varies over levels of patients (severity, say) or sessions (phase, say)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cbtrain.eval.analysis.hotelling import hotelling_f
from cbtrain.eval.analysis.resampling import in_order
from cbtrain.eval.analysis.rounding import alike, at_least

BETWEEN = "permutation test of the levels' means over patients (labels permuted)"
WITHIN = "Hotelling's test of the levels' differences within patients"

EXACT = 7
"""Most patients for which every permutation is tried (5,040)."""

DRAWS = 9_999


@dataclass(frozen=True, slots=True)
class Test:
    """``statistic`` F with ``df`` degrees of freedom and ``p``; NaN if ``problem`` says why there is none."""

    statistic: float
    df: tuple[int, int]
    p: float
    problem: str = ""


def between_patients(values: np.ndarray, levels: np.ndarray, size: float, seed: int = 0) -> Test:
    """Return the test of whether the means of ``values`` (float ``[patients]``, each patient's mean difference) differ
    between ``levels`` (int ``[patients]``, from 0 on).

    The statistic is the F of a one-way analysis of variance, its p that of permuted labels (Fisher 1935), so no
    distribution is assumed: exact up to seven patients; with more, 9,999 random permutations, to which the observed one
    is added (Phipson and Smyth 2010). ``size``: largest score that was subtracted, for rounding.
    """
    n, k = len(values), int(levels.max(initial=-1)) + 1
    df = (k - 1, n - k)
    if k < 2:
        return Test(math.nan, df, math.nan, "fewer than two levels have two patients")
    if alike(values, size):
        return Test(math.nan, df, math.nan, "all patients differ by the same amount")
    ordered = in_order(np.column_stack([values - values.mean(), levels]))
    centred, label = ordered[:, 0], ordered[:, 1].astype(int)
    members = np.eye(k)[label]
    counts = members.sum(axis=0)
    permuted = ((centred[_permutations(n, seed)] @ members) ** 2 / counts).sum(axis=1)
    between, total = float(((centred @ members) ** 2 / counts).sum()), float((centred**2).sum())
    hits = int(at_least(permuted, between, total).sum())
    p = hits / len(permuted) if n <= EXACT else (hits + 1) / (len(permuted) + 1)
    within = total - between
    flat = within <= 1e-12 * total
    return Test(math.nan if flat else between / df[0] / (within / df[1]), df, p)


def within_patients(values: np.ndarray, size: float) -> Test:
    """Return the test of whether the columns of ``values`` (float ``[patients, levels]``, each patient's mean
    difference at each level) have one mean: Hotelling's T² over each patient's differences to the first level; with two
    levels the paired t test. ``size`` as in :func:`between_patients`."""
    n, k = values.shape[0], values.shape[1] - 1
    df = (k, max(n - k, 0))
    if k < 1:
        return Test(math.nan, df, math.nan, "fewer than two levels have two patients")
    if n <= k or n < 2:
        needed = max(k + 1, 2)
        return Test(math.nan, df, math.nan, f"{n} patients have pairs at every level, and the test needs {needed}")
    found = hotelling_f(values[:, 1:] - values[:, :1], size)
    if found is None:
        return Test(math.nan, df, math.nan, "the patients' differences between levels do not vary enough")
    statistic, p = found
    return Test(statistic, df, p)


@lru_cache(maxsize=64)
def _permutations(n: int, seed: int) -> np.ndarray:
    """Return permutations of ``n`` places, int ``[permutations, n]``: all of them, or random ones."""
    if n <= EXACT:
        return np.array(list(itertools.permutations(range(n))))
    rng = np.random.default_rng([seed, n])
    return np.argsort(rng.random((DRAWS, n)), axis=1)
