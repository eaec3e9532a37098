"""A linear mixed model with a random intercept for each patient, by maximum likelihood.

statsmodels fits it. Its default optimizer stops short on the 2024 study's scores and says so in a warning only, so
optimizers are tried in a stated order, and a fit is taken once one says that it has converged and the likelihood is a
number. What no optimizer reaches, and a variance at its boundary of zero, are told of.
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
"""Tried in this order. ``lbfgs`` is left out: it leaves the region where the likelihood is a number."""


@dataclass(frozen=True, slots=True)
class Term:
    """A coefficient with its Wald interval and p value (normal approximation)."""

    term: str
    estimate: float
    se: float
    ci_low: float
    ci_high: float
    p: float


@dataclass(frozen=True, slots=True)
class MixedFit:
    """``patient_variance`` and ``scale`` (residual variance) in squared points; ``aic`` counts fixed effects, the
    patients' variance and the scale. ``covariance`` (float ``[terms, terms]``) is that of the fixed effects.
    ``problem`` says what is wrong with the fit, and is empty for a good one."""

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
    """``y``: float ``[rows]``; ``design``: float ``[rows, terms]``, an intercept among its columns; ``patients``:
    ``[rows]``, of which there must be two at least. 95 % intervals. Raises ValueError on what is not finite, on a
    design whose columns depend on each other, and where nothing is left to tell variances from."""
    from statsmodels.regression.mixed_linear_model import MixedLM  # half a second that only the 2024 protocol needs

    check_design(y, design)
    check_groups(y, design, np.unique(patients, return_inverse=True)[1])
    tried = []
    for optimizer in OPTIMIZERS:
        with warnings.catch_warnings():  # what they say is looked at below
            warnings.simplefilter("ignore")
            fit = MixedLM(y, design, groups=patients).fit(reml=False, method=optimizer)
        usable = bool(fit.converged) and math.isfinite(fit.llf)
        tried.append((optimizer, fit, usable))
        if usable:
            break
    else:
        tried.sort(key=lambda attempt: attempt[1].llf if math.isfinite(attempt[1].llf) else -math.inf)
    optimizer, fit, usable = tried[-1]
    variance, scale = float(fit.cov_re[0, 0]), float(fit.scale)
    problems = [] if usable else [f"no optimizer of {', '.join(OPTIMIZERS)} converged"]
    if fit.llf - _without_patients(y, design) <= ROUNDING * len(y):
        problems.append("the patients' variance is at its boundary of zero")
    count = design.shape[1]
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore")
        covariance = np.asarray(fit.cov_params())
        errors = np.sqrt(np.diag(covariance))
    if not np.isfinite(errors[:count]).all():
        problems.append("standard errors cannot be told")
    terms = [wald(name, float(b), float(se)) for name, b, se in zip(names, fit.fe_params, errors, strict=False)]
    return MixedFit(
        terms=tuple(terms),
        covariance=covariance[:count, :count],
        patient_variance=variance,
        patient_variance_se=float(errors[count]) * scale,
        scale=scale,
        log_likelihood=float(fit.llf),
        aic=float(-2 * fit.llf + 2 * (count + 2)),
        n=len(y),
        patients=len(np.unique(patients)),
        optimizer=optimizer,
        converged=usable,
        problem="; ".join(problems),
    )


def _without_patients(y: np.ndarray, design: np.ndarray) -> float:
    """Return the log-likelihood with a patients' variance of zero. Where the fit's is no higher, the variance is at its
    boundary: how close to zero it is itself is the optimizer's affair."""
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return -len(y) / 2 * (math.log(2 * math.pi * float(left @ left) / len(y)) + 1)


def wald(name: str, estimate: float, se: float) -> Term:
    """Return an estimate with its interval and p value; p is NaN if nothing varies."""
    margin = float(stats.norm.ppf(0.975)) * se
    p = float(2 * stats.norm.sf(abs(estimate) / se)) if se > 0 else math.nan
    return Term(name, estimate, se, estimate - margin, estimate + margin, p)
