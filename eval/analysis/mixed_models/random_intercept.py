"""A linear mixed model with a random intercept for each patient, by maximum likelihood.

statsmodels fits it. Its default optimizer stops early on the 2024 study's scores and says so in a warning only. So the
optimizers are tried in a fixed order, and the first fit that converged with a finite likelihood is taken. A fit that
did not converge, and a variance at its boundary of zero, are reported in ``problem``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cbtrain.eval.analysis.mixed_models.estimable import check_design, check_groups
from cbtrain.eval.analysis.rounding import ROUNDING

OPTIMIZERS = ("powell", "cg", "nm", "bfgs")
"""Tried in this order. ``lbfgs`` is left out: it leaves the region in which the likelihood is finite."""


@dataclass(frozen=True, slots=True)
class Term:
    """A coefficient with its Wald interval and p value (normal approximation)."""

    term: str
    estimate: float
    se: float
    ci_low: float
    ci_high: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedFit:
    """``patient_variance`` and ``scale`` (the residual variance) in squared points. ``covariance`` (float64 ``[terms,
    terms]``) of the fixed effects. ``aic`` counts the fixed effects, the patients' variance and the scale as
    parameters. ``problem``: what is wrong with the fit; empty for a good one."""

    terms: tuple[Term, ...]
    covariance: np.ndarray
    patient_variance: float
    patient_variance_se: float
    scale: float
    log_likelihood: float
    aic: float
    n: int
    patients: int
    optimizer: str
    converged: bool
    problem: str


def fit_mixed(y: np.ndarray, design: np.ndarray, names: Sequence[str], patients: np.ndarray) -> MixedFit:
    """Return the fit, with 95 % Wald intervals of the fixed effects.

    ``y``: float ``[rows]``; ``design``: float ``[rows, terms]`` with an intercept among its columns, which are called
    ``names``; ``patients``: ``[rows]``, at least two of them. Raises ValueError if a value is not finite, if columns of
    the design depend on each other, or if nothing is left to estimate the variances from.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM  # half a second that only the 2024 protocol needs

    check_design(y, design)
    check_groups(y, design, np.unique(patients, return_inverse=True)[1])
    attempts = []
    for optimizer in OPTIMIZERS:
        with warnings.catch_warnings():  # convergence and standard errors are checked below
            warnings.simplefilter("ignore")
            fit = MixedLM(y, design, groups=patients).fit(reml=False, method=optimizer)
        converged = bool(fit.converged) and math.isfinite(fit.llf)
        attempts.append((optimizer, fit, converged))
        if converged:
            break
    else:  # none converged: take the one of the highest likelihood
        attempts.sort(key=lambda attempt: attempt[1].llf if math.isfinite(attempt[1].llf) else -math.inf)
    optimizer, fit, converged = attempts[-1]
    scale = float(fit.scale)
    problems = [] if converged else [f"none of the optimizers {', '.join(OPTIMIZERS)} converged"]
    if fit.llf - _log_likelihood_without_patients(y, design) <= ROUNDING * len(y):
        problems.append("the patients' variance is at its boundary of zero")
    count = design.shape[1]
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore")
        covariance = np.asarray(fit.cov_params())
        errors = np.sqrt(np.diag(covariance))
    if not np.isfinite(errors[:count]).all():
        problems.append("standard errors could not be computed")
    terms = [wald(name, float(b), float(se)) for name, b, se in zip(names, fit.fe_params, errors[:count], strict=True)]
    return MixedFit(
        terms=tuple(terms),
        covariance=covariance[:count, :count],
        patient_variance=float(fit.cov_re[0, 0]),
        patient_variance_se=float(errors[count]) * scale,
        scale=scale,
        log_likelihood=float(fit.llf),
        aic=float(-2 * fit.llf + 2 * (count + 2)),
        n=len(y),
        patients=len(np.unique(patients)),
        optimizer=optimizer,
        converged=converged,
        problem="; ".join(problems),
    )


def _log_likelihood_without_patients(y: np.ndarray, design: np.ndarray) -> float:
    """Return the log-likelihood with a patients' variance of zero. If the fit's is no higher, the variance is at its
    boundary; the estimate itself is no sign of it, since how close to zero it stops depends on the optimizer."""
    residuals = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return -len(y) / 2 * (math.log(2 * math.pi * float(residuals @ residuals) / len(y)) + 1)


def wald(name: str, estimate: float, se: float) -> Term:
    """Return ``estimate`` with its 95 % Wald interval and two-sided p; p is NaN if ``se`` is 0."""
    margin = float(stats.norm.ppf(0.975)) * se
    p = float(2 * stats.norm.sf(abs(estimate) / se)) if se > 0 else math.nan
    return Term(name, estimate, se, estimate - margin, estimate + margin, p)
