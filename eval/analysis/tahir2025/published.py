"""The 2025 study's own model of each instrument: ``total ~ arm``, a random intercept for each patient, by restricted
maximum likelihood; Wald tests of the coefficients and of all differences between two arms, with Holm–Šidák.

Here the maximum is exact. The study's optimizer stopped just before it (``lbfgs`` of statsmodels, which ends in a
singular matrix on some processors), so the fifth digit of two of its variances is its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cbtrain.eval.analysis.mixed_models.balanced import BalancedFit, SumsOfSquares, fit_balanced
from cbtrain.eval.analysis.mixed_models.random_intercept import wald
from cbtrain.eval.analysis.resampling import holm_sidak

STOPPED_AT: Mapping[str, float] = {"act_fm": 0.184356, "tes": 0.216282}
"""Patients' variance divided by the residual one, where the study's optimizer stopped, by outcome."""

SAME = 1e-6
"""Scores whose log-likelihood at :data:`STOPPED_AT` is that close to its maximum are taken for the study's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A coefficient or a difference, in points, with its 95 % Wald interval; p by the normal approximation.
    ``p_adjusted`` of a difference: Holm–Šidák over all of them; None of a coefficient, as in the study."""

    name: str
    estimate: float
    se: float
    z: float
    ci_low: float
    ci_high: float
    p: float
    p_adjusted: float | None = None


@dataclass(frozen=True, slots=True)
class StoppedFit:
    """The fit where the study's optimizer stopped: its patients' variance and scale, and how far its log-likelihood
    lies below the maximum."""

    patient_variance: float
    scale: float
    log_likelihood: float
    below_maximum: float


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """Mean, SD (n − 1) and range of an arm's ``n`` totals, in points."""

    name: str
    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """``coefficients``: the intercept, which is the mean of the first arm, and the differences of the others to it.
    ``contrasts``: all pairs of arms, the first minus the second. ``stopped``: None for other scores than the study's.
    ``patient_variance_se_as_printed``: what statsmodels prints beside the patients' variance, which is no standard
    error of it: that of ``patient_variance / scale``, times √scale."""

    groups: tuple[ArmSummary, ...]
    fit: BalancedFit
    coefficients: tuple[Estimate, ...]
    contrasts: tuple[Estimate, ...]
    stopped: StoppedFit | None
    patient_variance_se_as_printed: float


def published_model(outcome: str, scores: np.ndarray, arms: Sequence[str]) -> PublishedModel:
    """Return the model of ``scores``, float ``[patients, arms]``, of the ``outcome`` of that key. Raises ValueError
    where there is nothing to model."""
    fit = fit_balanced(scores)
    first, *others = arms
    coefficients = [_estimate("intercept", float(fit.means[0]), fit.mean_se)]
    coefficients += [
        _estimate(f"{arm} − {first}", float(fit.means[index] - fit.means[0]), fit.difference_se)
        for index, arm in enumerate(others, start=1)
    ]
    pairs = list(itertools.combinations(range(len(arms)), 2))
    raw = [_estimate(pair_name(arms, i, j), float(fit.means[i] - fit.means[j]), fit.difference_se) for i, j in pairs]
    adjusted = holm_sidak([row.p for row in raw])
    return PublishedModel(
        groups=tuple(_summary(arm, column) for arm, column in zip(arms, scores.T, strict=True)),
        fit=fit,
        coefficients=tuple(coefficients),
        contrasts=tuple(replace(row, p_adjusted=p) for row, p in zip(raw, adjusted, strict=True)),
        stopped=_stopped(STOPPED_AT.get(outcome), SumsOfSquares.of(scores), fit),
        patient_variance_se_as_printed=fit.ratio_se * fit.scale**0.5,
    )


def pair_name(arms: Sequence[str], first: int, second: int) -> str:
    """Return the name of a difference between two of ``arms``, by their places."""
    return f"{arms[first]} − {arms[second]}"


def _estimate(name: str, estimate: float, se: float) -> Estimate:
    term = wald(name, estimate, se)
    return Estimate(
        name=name, estimate=estimate, se=se, z=estimate / se, ci_low=term.ci_low, ci_high=term.ci_high, p=term.p
    )


def _summary(arm: str, totals: np.ndarray) -> ArmSummary:
    low, high = float(totals.min()), float(totals.max())
    return ArmSummary(arm, len(totals), float(totals.mean()), float(totals.std(ddof=1)), low, high)


def _stopped(ratio: float | None, sums: SumsOfSquares, fit: BalancedFit) -> StoppedFit | None:
    """Return the fit at ``ratio``; None without one, or if the scores are not the study's."""
    if ratio is None:
        return None
    log_likelihood, scale = sums.log_likelihood_at(ratio), sums.scale_at(ratio)
    below = fit.log_likelihood - log_likelihood
    return StoppedFit(ratio * scale, scale, log_likelihood, max(below, 0.0)) if below <= SAME else None
