"""Coefficients of agreement between raters, and of halo: how far one rater's items are rated alike.

Each coefficient has two functions: one for the ratings as they are, and ``…_draws`` for many bootstrap resamples of the
sessions at once. A resample is a row of ``weights``: how often each session was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cbtrain.eval.analysis.rounding import ROUNDING, merged, size_of, varying


@dataclass(frozen=True, slots=True)
class Icc:
    """Intraclass correlations of Shrout and Fleiss (1979). ``single``: ICC(2,1), one rater drawn from many; ``mean``:
    ICC(2,k), the mean of k such raters; ``consistency``: ICC(3,1), these raters, their levels disregarded."""

    single: float
    mean: float
    consistency: float


def icc(ratings: np.ndarray) -> Icc:
    """Return the ICCs of ``ratings``, float ``[sessions, raters]``; NaN if nothing varies. Raises ValueError on missing
    values, and on fewer than two sessions or raters."""
    values = np.asarray(ratings, dtype=np.float64)
    n, k = values.shape
    if n < 2 or k < 2 or not np.isfinite(values).all():
        raise ValueError("an ICC needs two sessions, two raters and no missing values")
    single, mean, consistency = icc_draws(values, np.ones((1, n)))
    return Icc(float(single[0]), float(mean[0]), float(consistency[0]))


def icc_draws(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ICC(2,1), ICC(2,k) and ICC(3,1), float64 ``[draws]`` each. ``values``: float ``[sessions, raters]``;
    ``weights``: float ``[draws, sessions]``, rows sum to the number of sessions."""
    n, k = values.shape
    centred = values - values.mean()  # smaller numbers: sums of squares lose fewer digits
    session_means = centred.mean(axis=1)
    rater_means = weights @ centred / n
    grand_mean = rater_means.mean(axis=1)
    # Mean squares of the two-way analysis of variance: between sessions, between raters, residual.
    between_ms = k * (weights @ session_means**2 - n * grand_mean**2) / (n - 1)
    raters_ms = n * ((rater_means - grand_mean[:, None]) ** 2).sum(axis=1) / (k - 1)
    within_ss = weights @ ((centred - session_means[:, None]) ** 2).sum(axis=1)
    residual_ms = (within_ss - raters_ms * (k - 1)) / ((n - 1) * (k - 1))
    signal = between_ms - residual_ms
    single = _ratio(signal, between_ms, (k - 1) * residual_ms, k * raters_ms / n, -k * residual_ms / n)
    mean = _ratio(signal, between_ms, raters_ms / n, -residual_ms / n)
    consistency = _ratio(signal, between_ms, (k - 1) * residual_ms)
    # If no rater's scores vary, ICC(3,1) is rounding divided by rounding; if all scores are equal, all three are.
    high, low = _drawn_range(values, weights)
    rounding = ROUNDING * size_of(values)
    raters_constant = (high - low <= rounding).all(axis=1)
    all_equal = high.max(axis=1) - low.min(axis=1) <= rounding
    return (
        np.where(all_equal, np.nan, single),
        np.where(all_equal, np.nan, mean),
        np.where(raters_constant, np.nan, consistency),
    )


def _ratio(numerator: np.ndarray, *denominators: np.ndarray) -> np.ndarray:
    """Return ``numerator`` divided by the sum of ``denominators`` (float ``[draws]`` each); NaN if that sum is 0 but
    for rounding."""
    total, size = sum(denominators), sum(np.abs(part) for part in denominators)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.abs(total) > ROUNDING * size, numerator / total, np.nan)


def _drawn_range(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest and the lowest value of each column of ``values`` (float ``[sessions, columns]``) in each draw
    of ``weights`` (``[draws, sessions]``), float64 ``[draws, columns]`` each. They tell whether a draw varies; a
    variance computed as a difference of squares cannot be told from rounding."""
    drawn = weights > 0
    high = np.stack([np.where(drawn, column, -np.inf).max(axis=1) for column in values.T], axis=1)
    low = np.stack([np.where(drawn, column, np.inf).min(axis=1) for column in values.T], axis=1)
    return high, low


def quadratic_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Return Cohen's kappa with quadratic weights (1968) of two raters' scores, float ``[sessions]`` each; NaN if all
    scores of both are the same. Raises ValueError on different numbers of scores, or none."""
    scores = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if scores[0].shape != scores[1].shape or not len(scores[0]):
        raise ValueError("kappa needs two raters' scores of the same sessions")
    return float(kappa_draws(np.stack(scores, axis=1), np.ones((1, len(scores[0]))))[0])


def kappa_draws(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the quadratic kappa averaged over pairs of raters, float64 ``[draws]``. Arguments as in
    :func:`icc_draws`."""
    n = len(values)
    centred = values - values.mean()
    means, squares = weights @ centred / n, weights @ centred**2 / n
    high, low = _drawn_range(values, weights)
    kappas = []
    for i, j in combinations(range(values.shape[1]), 2):
        observed = weights @ (centred[:, i] - centred[:, j]) ** 2 / n
        expected = squares[:, i] + squares[:, j] - 2 * means[:, i] * means[:, j]
        varies = np.maximum(high[:, i], high[:, j]) - np.minimum(low[:, i], low[:, j]) > ROUNDING * size_of(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            kappas.append(np.where(varies, 1 - observed / expected, np.nan))
    return np.asarray(np.mean(kappas, axis=0))


def krippendorff_alpha(ratings: np.ndarray) -> float:
    """Return Krippendorff's alpha with the ordinal difference function (2011, Computing Krippendorff's
    Alpha-Reliability).

    ``ratings``: float ``[sessions, raters]``, NaN for a missing rating; sessions with fewer than two ratings do not
    count. NaN if all ratings are the same, or if no session has two.
    """
    values = np.asarray(ratings, dtype=np.float64)
    return float(alpha_draws(values, np.ones((1, len(values))))[0])


def alpha_draws(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Krippendorff's ordinal alpha, float64 ``[draws]``. Arguments as in :func:`icc_draws`, but ``values`` may
    have missing ones (NaN)."""
    pairable = np.isfinite(values).sum(axis=1) > 1
    values, weights = merged(values[pairable]), weights[:, pairable]
    levels = np.unique(values[np.isfinite(values)])
    if len(levels) < 2:
        return np.full(len(weights), np.nan)
    counts = np.zeros((len(values), len(levels)))
    for session, rater in zip(*np.nonzero(np.isfinite(values)), strict=True):
        counts[session, np.searchsorted(levels, values[session, rater])] += 1
    totals = weights @ counts
    # Ordinal difference of two levels: the number of ratings between them, plus half of those at each, squared. Sums of
    # squared differences are written as sums of ranks and of their squares: where scores have decimals, a table of all
    # pairs of levels would not fit into memory.
    ratings = totals.sum(axis=1)
    ranks = np.cumsum(totals, axis=1) - totals / 2 - ratings[:, None] / 2
    sums, squares, rated = ranks @ counts.T, ranks**2 @ counts.T, counts.sum(axis=1)
    observed = (weights * 2 * (rated * squares - sums**2) / (rated - 1)).sum(axis=1)
    expected = 2 * (ratings * (totals * ranks**2).sum(axis=1) - (totals * ranks).sum(axis=1) ** 2) / (ratings - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # No tolerance needed: if one level only is drawn, every product is exactly 0.
        return np.where(expected > 0, 1 - observed / expected, np.nan)


@dataclass(frozen=True, slots=True)
class Halo:
    """Halo: how much one overall impression determines all items.

    ``alpha``: Cronbach (1951); ``mean_r``: mean correlation between items; ``shares``: shares of variance of the
    factors (eigenvalues of the correlation matrix), largest first.
    """

    alpha: float
    mean_r: float
    shares: tuple[float, ...]


def halo(items: np.ndarray) -> Halo:
    """Return the halo of ``items``, float ``[ratings, items]``. An item that never varies is left out of the
    correlations. Raises ValueError on missing values, and on fewer than two ratings or two varying items."""
    values = np.asarray(items, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all() or varying(values).sum() < 2:
        raise ValueError("halo needs two ratings, two items that vary and no missing values")
    alpha, mean_r, shares = halo_draws(values, np.ones((1, len(values))))
    return Halo(float(alpha[0]), float(mean_r[0]), tuple(float(share) for share in shares[0]))


def halo_draws(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return alpha and the mean correlation, float64 ``[draws]`` each, and the shares of the factors, float64 ``[draws,
    varying items]``; NaN in draws in which an item does not vary. Arguments as in :func:`icc_draws`, with ratings in
    place of sessions and items in place of raters."""
    n, k = values.shape
    varying_items = np.flatnonzero(varying(values))
    centred = values - values.mean(axis=0)
    means = weights @ centred / n
    products = (centred[:, :, None] * centred[:, None, :]).reshape(n, -1)
    second_moments = (weights @ products / n).reshape(-1, k, k)
    covariance = (second_moments - means[:, :, None] * means[:, None, :]) * n / (n - 1)
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    rounding = ROUNDING * size_of(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha = k / (k - 1) * (1 - variances.sum(axis=1) / covariance.sum(axis=(1, 2)))
    high, low = _drawn_range(values.sum(axis=1, keepdims=True), weights)
    alpha = np.where(high[:, 0] - low[:, 0] > k * rounding, alpha, np.nan)
    high, low = _drawn_range(values[:, varying_items], weights)
    all_vary = (high - low > rounding).all(axis=1)
    sd = np.sqrt(np.maximum(variances[:, varying_items], 0))[all_vary]
    correlations = covariance[:, varying_items][:, :, varying_items][all_vary] / (sd[:, :, None] * sd[:, None, :])
    mean_r = np.full(len(weights), np.nan)
    shares = np.full((len(weights), len(varying_items)), np.nan)
    upper = np.triu_indices(len(varying_items), 1)
    mean_r[all_vary] = correlations[:, upper[0], upper[1]].mean(axis=1)
    shares[all_vary] = np.linalg.eigvalsh(correlations)[:, ::-1] / len(varying_items)
    return alpha, mean_r, shares
