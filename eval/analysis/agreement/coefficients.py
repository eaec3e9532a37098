"""How far raters agree, and how far a rater tells items apart.

Each statistic comes in two forms: of the ratings as they are, and ``…_draws``, of many resamples of the sessions at
once. A resample is a row of weights: how often each session was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cbtrain.eval.analysis.rounding import ROUNDING, merged, size_of, varying


@dataclass(frozen=True, slots=True)
class Icc:
    """Intraclass correlations of Shrout and Fleiss (1979): ``single`` (2,1) and ``mean`` (2,k), of raters drawn from
    many, and ``consistency`` (3,1), of these raters up to a constant."""

    single: float
    mean: float
    consistency: float


def icc(ratings: np.ndarray) -> Icc:
    """``ratings``: ``[sessions, raters]`` without gaps, two at least of each. NaN if nothing varies. Raises ValueError
    on gaps and too few."""
    values = np.asarray(ratings, dtype=np.float64)
    n, k = values.shape
    if n < 2 or k < 2 or not np.isfinite(values).all():
        raise ValueError("an ICC needs two sessions, two raters and no gaps")
    single, mean, consistency = icc_draws(values, np.ones((1, n)))
    return Icc(float(single[0]), float(mean[0]), float(consistency[0]))


def icc_draws(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ICC(2,1), (2,k) and (3,1), float64 ``[draws]`` each. ``values``: ``[sessions, raters]``; ``weights``:
    ``[draws, sessions]``, whose rows sum to the number of sessions."""
    n, k = values.shape
    centred = values - values.mean()  # sums of squares of small numbers lose nothing
    rows = centred.mean(axis=1)
    columns = weights @ centred / n
    grand = columns.mean(axis=1)
    between = k * (weights @ rows**2 - n * grand**2) / (n - 1)
    raters = n * ((columns - grand[:, None]) ** 2).sum(axis=1) / (k - 1)
    within = weights @ ((centred - rows[:, None]) ** 2).sum(axis=1)
    residual = (within - raters * (k - 1)) / ((n - 1) * (k - 1))
    spread, least = between - residual, ROUNDING * size_of(values)
    single = _over(spread, between, (k - 1) * residual, k * raters / n, -k * residual / n)
    mean = _over(spread, between, raters / n, -residual / n)
    consistency = _over(spread, between, (k - 1) * residual)
    # Without differences between sessions the last is rounding over rounding; without any, all three are.
    high, low = _drawn_ends(values, weights)
    steady, flat = (high - low <= least).all(axis=1), high.max(axis=1) - low.min(axis=1) <= least
    return (
        np.where(flat, np.nan, single),
        np.where(flat, np.nan, mean),
        np.where(steady, np.nan, consistency),
    )


def _over(above: np.ndarray, *below: np.ndarray) -> np.ndarray:
    """``above`` over the sum of ``below`` (float ``[draws]`` each); NaN if that sum is 0 but for rounding."""
    total, size = sum(below), sum(np.abs(part) for part in below)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.abs(total) > ROUNDING * size, above / total, np.nan)


def _drawn_ends(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest and the lowest of each column of ``values`` (float ``[sessions, columns]``) in each draw of
    ``weights`` (``[draws, sessions]``), float64 ``[draws, columns]``. Whether anything varies in a draw is asked of
    these: a variance that is a difference of squares cannot tell it from rounding."""
    drawn = weights > 0
    high = np.stack([np.where(drawn, column, -np.inf).max(axis=1) for column in values.T], axis=1)
    low = np.stack([np.where(drawn, column, np.inf).min(axis=1) for column in values.T], axis=1)
    return high, low


def quadratic_kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Return Cohen's kappa with quadratic weights (1968) of two raters' scores, ``[sessions]`` each. NaN if both give
    one and the same score always: then nothing can be told."""
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.shape != second.shape or not len(first):
        raise ValueError("two raters' scores of the same sessions are needed")
    return float(kappa_draws(np.stack([first, second], axis=1), np.ones((1, len(first))))[0])


def kappa_draws(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Quadratic kappa, its mean over pairs of raters, float64 ``[draws]``; arguments as :func:`icc_draws` has them."""
    n = len(values)
    centred = values - values.mean()
    means, squares = weights @ centred / n, weights @ centred**2 / n
    high, low = _drawn_ends(values, weights)
    found = []
    for i, j in combinations(range(values.shape[1]), 2):
        observed = weights @ (centred[:, i] - centred[:, j]) ** 2 / n
        expected = squares[:, i] + squares[:, j] - 2 * means[:, i] * means[:, j]
        differs = np.maximum(high[:, i], high[:, j]) - np.minimum(low[:, i], low[:, j]) > ROUNDING * size_of(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(np.where(differs, 1 - observed / expected, np.nan))
    return np.asarray(np.mean(found, axis=0))


def krippendorff_alpha(ratings: np.ndarray) -> float:
    """Return Krippendorff's alpha with the ordinal difference (2011, Computing Krippendorff's alpha-reliability).

    ``ratings``: ``[sessions, raters]``, NaN if there is none; sessions with fewer than two ratings tell nothing. NaN
    where all ratings are the same, or no session has two.
    """
    values = np.asarray(ratings, dtype=np.float64)
    return float(alpha_draws(values, np.ones((1, len(values))))[0])


def alpha_draws(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Krippendorff's ordinal alpha, float64 ``[draws]``; ``values`` may have gaps (NaN)."""
    enough = np.isfinite(values).sum(axis=1) > 1
    values, weights = merged(values[enough]), weights[:, enough]
    levels = np.unique(values[np.isfinite(values)])
    if len(levels) < 2:
        return np.full(len(weights), np.nan)
    coincidences = np.zeros((len(values), len(levels), len(levels)))
    for place, row in enumerate(values):
        counts = np.bincount(np.searchsorted(levels, row[np.isfinite(row)]), minlength=len(levels)).astype(np.float64)
        coincidences[place] = (np.outer(counts, counts) - np.diag(counts)) / (counts.sum() - 1)
    drawn = (weights @ coincidences.reshape(len(values), -1)).reshape(-1, len(levels), len(levels))
    totals = drawn.sum(axis=1)
    # Between two levels lie all ratings from the one to the other, half of those at each end.
    middle = np.cumsum(totals, axis=1) - totals / 2
    distance = (middle[:, :, None] - middle[:, None, :]) ** 2
    observed = (drawn * distance).sum(axis=(1, 2))
    expected = np.einsum("di,dj,dij->d", totals, totals, distance) / (totals.sum(axis=1) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Exact: with one level drawn, every product has a factor that is 0.
        return np.where(expected > 0, 1 - observed / expected, np.nan)


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
    if len(values) < 2 or not np.isfinite(values).all() or varying(values).sum() < 2:
        raise ValueError("halo needs two ratings, two items that vary and no gaps")
    alpha, mean_r, shares = halo_draws(values, np.ones((1, len(values))))
    return Halo(float(alpha[0]), float(mean_r[0]), tuple(float(share) for share in shares[0]))


def halo_draws(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return alpha and mean correlation, float64 ``[draws]``, and the shares of factors, ``[draws, varying items]``;
    NaN in draws in which an item does not vary."""
    n, k = values.shape
    kept = np.flatnonzero(varying(values))
    centred = values - values.mean(axis=0)
    means = weights @ centred / n
    products = (centred[:, :, None] * centred[:, None, :]).reshape(n, -1)
    second = (weights @ products / n).reshape(-1, k, k)
    covariance = (second - means[:, :, None] * means[:, None, :]) * n / (n - 1)
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha = k / (k - 1) * (1 - variances.sum(axis=1) / covariance.sum(axis=(1, 2)))
    least = ROUNDING * size_of(values)
    high, low = _drawn_ends(values.sum(axis=1, keepdims=True), weights)
    alpha = np.where(high[:, 0] - low[:, 0] > k * least, alpha, np.nan)
    chosen = covariance[:, kept][:, :, kept]
    sd = np.sqrt(np.maximum(variances[:, kept], 0))
    high, low = _drawn_ends(values[:, kept], weights)
    usable = (high - low > least).all(axis=1)
    mean_r = np.full(len(weights), np.nan)
    shares = np.full((len(weights), len(kept)), np.nan)
    correlations = chosen[usable] / (sd[usable][:, :, None] * sd[usable][:, None, :])
    upper = np.triu_indices(len(kept), 1)
    mean_r[usable] = correlations[:, upper[0], upper[1]].mean(axis=1)
    shares[usable] = np.linalg.eigvalsh(correlations)[:, ::-1] / len(kept)
    return alpha, mean_r, shares
