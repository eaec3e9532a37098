"""Ridge regression (Hoerl and Kennard 1970) of several scores on standardized features, in closed form.

Of ``n`` sessions with standardized features ``Z`` and centred scores ``y``, the coefficients are
``(ZᵀZ + n·penalty·I)⁻¹ Zᵀy``: the penalty counts per session, so it means the same for a part of the sessions. It is
chosen for each score by cross-validation over groups (patients), whose sessions are never on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.rounding import varying

PENALTIES = tuple(float(f"{10 ** (power / 2):.3g}") for power in range(-6, 5))
"""0.001 to 100, half a power of ten apart."""


@dataclass(frozen=True, slots=True)
class Ridge:
    """``mean``, ``spread`` (SD), ``low`` and ``high`` of the features in the fit, float64 ``[features]``; ``penalty``
    and ``intercept``, ``[scores]``; ``coefficients``, ``[scores, features]``: points for each SD, 0 of features that do
    not vary."""

    mean: np.ndarray
    spread: np.ndarray
    low: np.ndarray
    high: np.ndarray
    penalty: np.ndarray
    intercept: np.ndarray
    coefficients: np.ndarray

    def standardized(self, features: np.ndarray) -> np.ndarray:
        """Return ``features`` (float ``[rows, features]``) in SDs from the mean. What lies outside of the fitted range
        is cut to it, so nothing is extrapolated."""
        return np.asarray((np.clip(features, self.low, self.high) - self.mean) / self.spread)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the scores, float64 ``[rows, scores]``."""
        return np.asarray(self.intercept + self.standardized(features) @ self.coefficients.T)


def fit_ridge(features: np.ndarray, scores: np.ndarray, penalty: np.ndarray) -> Ridge:
    """Return the fit of ``scores`` (float ``[rows, scores]``, finite) on ``features`` (float ``[rows, features]``,
    finite) with one ``penalty`` for each score (float ``[scores]``)."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    varies = varying(features)
    spread = np.where(varies, spread, 1.0)
    standardized = np.where(varies, (features - mean) / spread, 0.0)
    intercept = scores.mean(axis=0)
    left, singular, right = np.linalg.svd(standardized, full_matrices=False)
    shrunk = singular[:, None] / (singular[:, None] ** 2 + len(features) * np.asarray(penalty)[None, :])
    coefficients = (shrunk * (left.T @ (scores - intercept))).T @ right
    coefficients = np.where(varies, coefficients, 0.0)
    low, high = features.min(axis=0), features.max(axis=0)
    return Ridge(mean, spread, low, high, np.asarray(penalty, dtype=np.float64), intercept, coefficients)


def fit_with_choice(features: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> Ridge:
    """Return the fit with the penalty, for each score, whose predictions of left-out ``groups`` have the smallest mean
    squared error; of equal ones, and where there is one group only, the largest. Arguments as in
    :func:`fit_ridge`; ``groups``: str ``[rows]``."""
    count = scores.shape[1]
    every = np.repeat(PENALTIES, count)
    errors = np.zeros(len(every))
    for out in folds_of(groups, INNER):
        if out.all():
            break
        # One decomposition serves all penalties: each score stands there once for each.
        fit = fit_ridge(features[~out], np.tile(scores[~out], len(PENALTIES)), every)
        errors += ((fit.predict(features[out]) - np.tile(scores[out], len(PENALTIES))) ** 2).sum(axis=0)
    by_penalty = errors.reshape(len(PENALTIES), count)
    best = len(PENALTIES) - 1 - by_penalty[::-1].argmin(axis=0)
    return fit_ridge(features, scores, np.array(PENALTIES)[best])


OUTER, INNER = 10, 10
"""Most folds of a validation and of a choice: with fewer groups each is left out by itself."""


def folds_of(groups: np.ndarray, most: int) -> list[np.ndarray]:
    """Return the rows that each fold leaves out, bool ``[rows]`` each: every group lies in one fold, and at most
    ``most`` folds are about equally large. The same ``groups`` (str ``[rows]``) give the same folds, whatever their
    order."""
    names, sizes = np.unique(np.asarray(groups), return_counts=True)
    order = sorted(zip(names.tolist(), sizes.tolist(), strict=True), key=lambda group: (-group[1], group[0]))
    folds: list[list[str]] = [[] for _ in range(min(most, len(order)))]
    filled = [0] * len(folds)
    for name, size in order:
        place = filled.index(min(filled))
        folds[place].append(name)
        filled[place] += size
    return [np.isin(np.asarray(groups), fold) for fold in folds]
