"""How far raters agree, and how far a rater tells items apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Icc:
    """Intraclass correlations of Shrout and Fleiss (1979): ``single`` (2,1) and ``mean`` (2,k), of raters drawn from
    many, and ``consistency`` (3,1), of these raters up to a constant."""

    single: float
    mean: float
    consistency: float


def icc(ratings: np.ndarray) -> Icc:
    """``ratings``: ``[sessions, raters]`` without gaps, two at least of each. NaN where nothing varies. Raises
    ValueError on gaps and too few."""
    values = np.asarray(ratings, dtype=np.float64)
    n, k = values.shape
    if n < 2 or k < 2 or not np.isfinite(values).all():
        raise ValueError("an ICC needs two sessions, two raters and no gaps")
    grand = values.mean()
    rows, columns = values.mean(axis=1) - grand, values.mean(axis=0) - grand
    between = k * (rows**2).sum() / (n - 1)
    raters = n * (columns**2).sum() / (k - 1)
    residual = ((values - grand - rows[:, None] - columns) ** 2).sum() / ((n - 1) * (k - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        single = (between - residual) / (between + (k - 1) * residual + k * (raters - residual) / n)
        mean = (between - residual) / (between + (raters - residual) / n)
        consistency = (between - residual) / (between + (k - 1) * residual)
    return Icc(float(single), float(mean), float(consistency))


def quadratic_kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights (1968) of two raters' scores, ``[sessions]`` each. NaN where both give one
    and the same score always: then nothing can be told."""
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.shape != second.shape or not len(first):
        raise ValueError("two raters' scores of the same sessions are needed")
    observed = ((first - second) ** 2).mean()
    expected = ((first[:, None] - second) ** 2).mean()
    return float(1 - observed / expected) if expected > 0 else float("nan")


def krippendorff_alpha(ratings: np.ndarray) -> float:
    """Krippendorff's alpha with the ordinal difference (2011, Computing Krippendorff's alpha-reliability).

    ``ratings``: ``[sessions, raters]``, NaN where there is none; sessions with fewer than two ratings tell nothing. NaN
    where all ratings are the same, or no session has two.
    """
    values = np.asarray(ratings, dtype=np.float64)
    values = values[np.isfinite(values).sum(axis=1) > 1]
    levels = np.unique(values[np.isfinite(values)])
    if len(levels) < 2:
        return float("nan")
    coincidences = np.zeros((len(levels), len(levels)))
    for row in values:
        counts = np.bincount(np.searchsorted(levels, row[np.isfinite(row)]), minlength=len(levels)).astype(np.float64)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (counts.sum() - 1)
    totals = coincidences.sum(axis=0)
    below = np.cumsum(totals)
    # Between two levels lie all ratings from the one to the other, half of those at each end.
    distance = np.abs((below - totals / 2)[:, None] - (below - totals / 2)) ** 2
    observed = (coincidences * distance).sum()
    expected = (np.outer(totals, totals) * distance).sum() / (totals.sum() - 1)
    return float(1 - observed / expected)


@dataclass(frozen=True, slots=True)
class Halo:
    """How much one impression colours all items: ``alpha`` (Cronbach 1951), the mean correlation between items, and the
    shares of variance of the first factors (eigenvalues of the correlations), largest first."""

    alpha: float
    mean_r: float
    shares: tuple[float, ...]


def halo(items: np.ndarray) -> Halo:
    """``items``: ``[ratings, items]`` without gaps. An item that never varies is left out of correlations. Raises
    ValueError on gaps and fewer than two ratings or varying items."""
    values = np.asarray(items, dtype=np.float64)
    varying = values[:, values.std(axis=0) > 0]
    if len(values) < 2 or varying.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError("halo needs two ratings, two items that vary and no gaps")
    k = values.shape[1]
    alpha = k / (k - 1) * (1 - values.var(axis=0, ddof=1).sum() / values.sum(axis=1).var(ddof=1))
    correlations = np.corrcoef(varying, rowvar=False)
    upper = correlations[np.triu_indices(len(correlations), 1)]
    shares = np.linalg.eigvalsh(correlations)[::-1] / len(correlations)
    return Halo(float(alpha), float(upper.mean()), tuple(float(share) for share in shares))
