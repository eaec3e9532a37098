"""Two sets of patients compared: each measure with an interval, and all measures at once by one permutation test.

The patient is the unit, since turns and sessions of one patient are alike. A test finds differences; that it finds none
is no proof that simulated patients are realistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cbtrain.eval.patient_audit.measures import MEASURES

FEWEST_PATIENTS = 3
"""In each set; with fewer no interval and no test is given."""

PERMUTATIONS = 9_999

ROUNDING = 1e-12
"""Relative differences below this are those of rounding."""

Table = Mapping[str, Mapping[str, float | None]]
"""Values by patient and measure, as :func:`cbtrain.eval.patient_audit.measures.by_patient` returns them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first set's mean of patients minus the second's, with the 95 % interval of Welch's t; ``standardized``: by
    the pooled SD of patients. None where it cannot be computed."""

    measure: str
    mean: float | None
    other: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    standardized: float | None


@dataclass(frozen=True, slots=True)
class AllAtOnce:
    """The energy distance (Székely and Rizzo 2013) between patients' standardized ``measures``, and the ``p`` of a
    permutation of patients; None with too few patients. ``left_out``: measures that a patient lacks or that do not
    vary."""

    measures: list[str]
    left_out: list[str]
    patients: tuple[int, int]
    distance: float | None
    p: float | None
    permutations: int


def differences(one: Table, other: Table) -> list[Difference]:
    """Return the difference in each measure."""
    return [_difference(name, _column(one, name), _column(other, name)) for name in MEASURES]


def energy_test(one: Table, other: Table, seed: int = 0, permutations: int = PERMUTATIONS) -> AllAtOnce:
    """Return the test of all measures at once. The observed assignment counts as one of the permutations (Phipson and
    Smyth 2010), so the smallest p is 1 / (``permutations`` + 1)."""
    rows = [*one.values(), *other.values()]
    used, columns = [], []
    for name in MEASURES:
        column = [row[name] for row in rows]
        values = np.array([value for value in column if value is not None])
        if len(values) == len(rows) and len(rows) and values.std() > ROUNDING * max(1.0, np.abs(values).max()):
            used.append(name)
            columns.append((values - values.mean()) / values.std())
    left_out = [name for name in MEASURES if name not in used]
    sizes = (len(one), len(other))
    if min(sizes) < FEWEST_PATIENTS or not used:
        return AllAtOnce(used, left_out, sizes, None, None, 0)
    points = np.stack(columns, axis=1)
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))
    signs = np.where(np.arange(len(rows)) < sizes[0], 1 / sizes[0], -1 / sizes[1])
    observed = float(-signs @ distances @ signs)
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(signs, (permutations, 1)), axis=1)
    drawn = -np.einsum("ij,ij->i", shuffled @ distances, shuffled)
    hits = int((drawn >= observed - ROUNDING * max(1.0, abs(observed))).sum())
    return AllAtOnce(used, left_out, sizes, observed, (hits + 1) / (permutations + 1), permutations)


def _difference(name: str, one: np.ndarray, other: np.ndarray) -> Difference:
    mean, mean_other = (float(values.mean()) if len(values) else None for values in (one, other))
    if mean is None or mean_other is None:
        return Difference(name, mean, mean_other, None, None, None, None)
    low = high = standardized = None
    both = np.concatenate([one, other])
    varies = both.std() > ROUNDING * max(1.0, np.abs(both).max())
    if min(len(one), len(other)) >= FEWEST_PATIENTS and varies and one.var() + other.var() > ROUNDING * both.var():
        n, m = len(one), len(other)
        variance, variance_other = one.var(ddof=1), other.var(ddof=1)
        parts = np.array([variance / n, variance_other / m])
        df = parts.sum() ** 2 / (parts**2 / (n - 1, m - 1)).sum()
        half = float(stats.t.ppf(0.975, df) * np.sqrt(parts.sum()))
        low, high = mean - mean_other - half, mean - mean_other + half
        pooled = ((n - 1) * variance + (m - 1) * variance_other) / (n + m - 2)
        standardized = float((mean - mean_other) / np.sqrt(pooled))
    return Difference(name, mean, mean_other, mean - mean_other, low, high, standardized)


def _column(table: Table, name: str) -> np.ndarray:
    return np.array([value for row in table.values() if (value := row[name]) is not None], np.float64)


def shared_patients(one: Table, other: Table) -> Sequence[str]:
    """Return the patients of both sets: they are compared as if they were different people."""
    return sorted(set(one) & set(other))
