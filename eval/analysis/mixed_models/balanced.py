"""``score ~ arm``, a random intercept for each patient, by restricted maximum likelihood, where every patient has one
score with every arm. The maximum then has a closed form, from the sums of squares of the analysis of variance (Searle,
Casella and McCulloch 1992, chapter 4): no search, so the same figures on every processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.mixed_models.estimable import NO_RESIDUAL
from cbtrain.eval.analysis.rounding import nought, size_of

BOUNDARY = "the patients' variance is at its boundary of zero"


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedFit:
    """``means`` of the arms, float64 ``[arms]``. ``patient_variance`` and ``scale`` (the residual variance) in squared
    points. ``patient_variance_se``: of that variance, by the expected information; ``ratio_se``: of the ratio
    ``patient_variance / scale``, by the delta method. Both are NaN where ``problem`` says that the variance is at its
    boundary."""

    means: np.ndarray
    patients: int
    patient_variance: float
    patient_variance_se: float
    ratio_se: float
    scale: float
    log_likelihood: float
    problem: str

    @property
    def mean_se(self) -> float:
        """Return the standard error of an arm's mean."""
        return math.sqrt((self.scale + self.patient_variance) / self.patients)

    @property
    def difference_se(self) -> float:
        """Return the standard error of the difference of two arms' means."""
        return math.sqrt(2 * self.scale / self.patients)


@dataclass(frozen=True, slots=True)
class SumsOfSquares:
    """Sums of squares of ``patients`` × ``arms`` scores: ``between`` patients, and what arms and patients leave."""

    patients: int
    arms: int
    between: float
    residual: float

    @classmethod
    def of(cls, scores: np.ndarray) -> SumsOfSquares:
        """Return the sums of squares of ``scores``, float ``[patients, arms]``. Raises ValueError if a score is not
        finite, if there are fewer than two patients or arms, or if arms and patients explain all scores."""
        if not np.isfinite(scores).all():
            raise ValueError("scores must be finite")
        patients, arms = scores.shape
        if patients < 2 or arms < 2:
            raise ValueError("the model needs two patients and two arms")
        levels = scores.mean(axis=1, keepdims=True) - scores.mean()
        residuals = scores - levels - scores.mean(axis=0)
        if nought(residuals, size_of(scores)):
            raise ValueError(NO_RESIDUAL)
        return cls(patients, arms, float(arms * (levels**2).sum()), float((residuals**2).sum()))

    def scale_at(self, ratio: float) -> float:
        """Return the residual variance of the highest likelihood with patients' variance ``ratio`` times it."""
        degrees = self.arms * (self.patients - 1)
        return (self.residual + self.between / (1 + self.arms * ratio)) / degrees

    def log_likelihood_at(self, ratio: float) -> float:
        """Return the restricted log-likelihood, profiled over the residual variance, with all constants."""
        n, k = self.patients, self.arms
        degrees, factor = k * (n - 1), 1 + k * ratio
        scale = self.scale_at(ratio)
        determinants = (n - 1) * (k * math.log(scale) + math.log(factor)) + k * math.log(n)
        return -(degrees * (math.log(2 * math.pi) + 1) + determinants) / 2


def fit_balanced(scores: np.ndarray) -> BalancedFit:
    """Return the fit of ``scores``, float ``[patients, arms]``. Raises ValueError as :meth:`SumsOfSquares.of`."""
    sums = SumsOfSquares.of(scores)
    n, k = sums.patients, sums.arms
    degrees = (n - 1) * (k - 1)
    mean_square, factor = sums.residual / degrees, sums.between / (n - 1) / (sums.residual / degrees)
    at_boundary = factor <= 1
    ratio = 0.0 if at_boundary else (factor - 1) / k
    scale = sums.scale_at(ratio)
    spread = (factor * mean_square) ** 2 / (n - 1) + mean_square**2 / degrees
    return BalancedFit(
        means=scores.mean(axis=0),
        patients=n,
        patient_variance=ratio * scale,
        patient_variance_se=math.nan if at_boundary else math.sqrt(2 * spread) / k,
        ratio_se=math.nan if at_boundary else factor / k * math.sqrt(2 / (n - 1) + 2 / degrees),
        scale=scale,
        log_likelihood=sums.log_likelihood_at(ratio),
        problem=BOUNDARY if at_boundary else "",
    )
