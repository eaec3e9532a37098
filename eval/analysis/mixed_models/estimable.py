"""Checks, before a mixed model is fitted, that the data leave variances to estimate.

If the effects explain the scores completely, the likelihood has no maximum: a search would stop by rounding or by its
limit of steps, and report a fit with an interval of almost no width.
"""

from __future__ import annotations

import numpy as np

from cbtrain.eval.analysis.rounding import ROUNDING, independent, nought, size_of

NO_RESIDUAL = "the residual variance is at its boundary of zero"


def check_design(y: np.ndarray, design: np.ndarray) -> None:
    """Raise ValueError if a value is not finite, if columns of ``design`` (float ``[rows, terms]``) depend on each
    other, or if ``design`` explains ``y`` (float ``[rows]``) completely."""
    if not (np.isfinite(y).all() and np.isfinite(design).all()):
        raise ValueError("scores and design must be finite")
    if not independent(design):
        raise ValueError("columns of the design depend on each other")
    if len(y) <= design.shape[1] or nought(_residuals(y, _basis(_unit(design))), size_of(y)):
        raise ValueError("the fixed effects explain the sessions completely")


def check_groups(y: np.ndarray, design: np.ndarray, groups: np.ndarray) -> None:
    """Raise ValueError if ``design`` and a level of each of ``groups`` (int ``[rows]``, numbered from 0) together
    explain ``y`` completely. The arguments have passed :func:`check_design`."""
    # Scale to unit length before subtracting group means: a column that is constant in each group leaves rounding only.
    basis = _basis(within(_unit(design), groups))
    if len(y) <= groups.max() + 1 + basis.shape[1]:
        raise ValueError(NO_RESIDUAL)
    if nought(_residuals(within(y[:, None], groups)[:, 0], basis), size_of(y)):
        raise ValueError(NO_RESIDUAL)


def within(columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return ``columns`` (float ``[rows, columns]``) minus their means over each of ``groups`` (int ``[rows]``,
    numbered from 0). Float64 ``[rows, columns]``."""
    sums = np.zeros((groups.max() + 1, columns.shape[1]))
    np.add.at(sums, groups, columns)
    return np.asarray(columns - (sums / np.bincount(groups)[:, None])[groups])


def _unit(design: np.ndarray) -> np.ndarray:
    """Return the columns of ``design``, each scaled to length 1."""
    return np.asarray(design / np.linalg.norm(design, axis=0))


def _basis(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the span of ``columns``, whose lengths are at most 1. Directions that are there by
    rounding only are left out. Float64 ``[rows, rank]``."""
    left, singular_values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, singular_values > ROUNDING])


def _residuals(y: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return ``y`` minus its projection on an orthonormal ``basis``, float64 ``[rows]``."""
    return np.asarray(y - basis @ (basis.T @ y))
