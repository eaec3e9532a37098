"""Spearman's rank correlation, for many resamples of the sessions at once."""

from __future__ import annotations

import math

import numpy as np

from cbtrain.eval.analysis.resampling import percentile_interval
from cbtrain.eval.analysis.rounding import merged

LEAST = 5
"""Fewest sessions of an arm whose correlation counts in the mean over arms."""


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return the rank correlation of two columns, float ``[rows]`` each, finite; NaN with fewer than three rows or
    where one of them does not vary."""
    if len(first) < 3:
        return math.nan
    return float(spearman_draws(first, second, np.ones((1, len(first))))[0])


def spearman_draws(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the rank correlation in each resample, float64 ``[draws]``. ``weights``: float ``[draws, rows]``, how
    often each row was drawn."""
    total = weights.sum(axis=1, keepdims=True)
    a, b = (_ranks(merged(values), weights) for values in (first, second))
    a, b = (ranks - (weights * ranks).sum(axis=1, keepdims=True) / total for ranks in (a, b))
    covariance, of_a, of_b = ((weights * product).sum(axis=1) for product in (a * b, a * a, b * b))
    with np.errstate(invalid="ignore", divide="ignore"):
        # The smallest variance of ranks that do vary is far above 1e-6.
        return np.where(np.minimum(of_a, of_b) > 1e-6, covariance / np.sqrt(of_a * of_b), np.nan)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean ranks of ``values`` (float ``[rows]``) in each resample, float64 ``[draws, rows]``."""
    order = np.argsort(values, kind="stable")
    _, starts, level = np.unique(values[order], return_index=True, return_inverse=True)
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    level = level[np.argsort(order)]
    return np.asarray((np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, level])


def within_groups(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> float:
    """Return the mean over ``groups`` (str ``[rows]``) of the rank correlations in them, weighted by their rows; NaN if
    there is none. A group counts with ``LEAST`` rows in which both columns vary."""
    found = []
    for group in np.unique(groups):
        rows = groups == group
        r = spearman(first[rows], second[rows]) if rows.sum() >= LEAST else math.nan
        if math.isfinite(r):
            found.append((r, int(rows.sum())))
    return float(np.average([r for r, _ in found], weights=[n for _, n in found])) if found else math.nan


def interval(first: np.ndarray, second: np.ndarray, patients: np.ndarray, draws: int, seed: int) -> list[float]:
    """Return a 95 % percentile interval of the rank correlation from resampled ``patients`` (str ``[rows]``); NaN where
    it has none."""
    names, place = np.unique(np.asarray(patients), return_inverse=True)
    chosen = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    counts = (chosen[:, :, None] == np.arange(len(names))).sum(axis=1)
    values = spearman_draws(first, second, counts[:, place].astype(np.float64))
    values = values[np.isfinite(values)]
    return list(percentile_interval(values)) if len(names) > 1 and len(values) else [math.nan, math.nan]
