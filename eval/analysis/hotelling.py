"""Hotelling's T² (1931): whether the means of several differences of each patient are all 0."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from cbtrain.eval.analysis.rounding import nought


def hotelling(differences: np.ndarray, size: float) -> float | None:
    """Return Hotelling's T² of ``differences`` (float ``[patients, k]``) against 0; None if their covariance is
    singular but for rounding of scores of this ``size``."""
    n = len(differences)
    mean = differences.mean(axis=0)
    # The covariance is axes' · diag(singular values²) · axes / (n − 1).
    _, singular_values, axes = np.linalg.svd(differences - mean, full_matrices=False)
    if nought(singular_values.min(), math.sqrt(n) * size):
        return None
    return n * (n - 1) * float(((axes @ mean / singular_values) ** 2).sum())


def hotelling_f(differences: np.ndarray, size: float) -> tuple[float, float] | None:
    """Return Hotelling's T² of ``differences`` (float ``[patients, k]``, more patients than k) as F with k and
    patients - k degrees of freedom, and its p; None as :func:`hotelling`."""
    n, k = differences.shape
    t_squared = hotelling(differences, size)
    if t_squared is None:
        return None
    statistic = (n - k) / ((n - 1) * k) * t_squared
    return statistic, float(stats.f.sf(statistic, k, n - k))
