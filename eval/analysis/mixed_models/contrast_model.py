"""The planned contrasts from a mixed model of all sessions, as a check of those from the patients' mean differences.

``total ~ arm + (1 | patient) + (1 | patient:arm)``, on sessions averaged over judges and repeats. The last term is
needed because an arm affects one patient alike in all of that patient's sessions: without it, sessions would count as
independent. Wald intervals are too narrow with few patients, so the patients' mean differences stay primary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.agreement.severity import connected, session_means
from cbtrain.eval.analysis.contrast_plan import Plan
from cbtrain.eval.analysis.mixed_models.random_intercept import Term, wald
from cbtrain.eval.analysis.mixed_models.reml import Components, RemlFit, fit_reml
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import alike, nought, size_of


@dataclass(frozen=True, slots=True)
class ModelContrast:
    """A planned contrast from the model, in points, with a 95 % Wald interval. If there is no fit, the numbers are NaN
    and ``problem`` says why; otherwise ``problem`` is that of :class:`RemlFit`."""

    id: str
    estimate: float
    se: float
    ci_low: float
    ci_high: float
    p: float
    problem: str


@dataclass(frozen=True, slots=True)
class _Sessions:
    """One row per session: names of ``arm`` and ``patient``, ``total`` (float64 ``[sessions]``), ``covariates``
    (float64 ``[sessions, covariates]``)."""

    arm: np.ndarray
    patient: np.ndarray
    total: np.ndarray
    covariates: np.ndarray


@dataclass(frozen=True, slots=True)
class MixedModel:
    """``contrasts`` in the order of their plans; ``covariates``: their coefficients, empty if there is no fit;
    ``components``: variances of patients, of patients by arm and of sessions, None if there is no fit."""

    contrasts: list[ModelContrast]
    covariates: list[Term]
    components: Components | None


def mixed_model(
    ratings: Ratings, plans: Sequence[Plan], covariates: Mapping[str, np.ndarray] | None = None
) -> MixedModel:
    """Return each of ``plans`` from one model of all arms and ``covariates``.

    ``covariates``: by name, float ``[rows]``, the same value in all ratings of a session; a session with a NaN is left
    out.
    """
    covariates = covariates or {}
    sessions = _sessions(ratings, covariates)
    if not connected(ratings):
        return _no_model(plans, "the judges share too few sessions to estimate their severity")
    arms = [arm for arm in ratings.arms if (sessions.arm == arm).any()]
    if len(arms) < 2 or len(set(sessions.patient)) < 2:
        return _no_model(plans, "a mixed model needs two arms and two patients")
    indicators = [(sessions.arm == arm).astype(float) for arm in arms]
    fit = _fit(sessions, np.column_stack([*indicators, sessions.covariates]), [*arms, *covariates])
    if isinstance(fit, str):
        return _no_model(plans, fit)
    patients_of = {arm: set(map(str, sessions.patient[sessions.arm == arm])) for arm in arms}
    size = size_of(sessions.total)
    contrasts = [_contrast(fit, plan, arms, patients_of, size) for plan in plans]
    return MixedModel(contrasts, list(fit.terms[len(arms) :]), fit.components)


def _sessions(ratings: Ratings, covariates: Mapping[str, np.ndarray]) -> _Sessions:
    """Return the sessions that have a total and all covariates. The judges' severities come from all ``ratings``, those
    of the other sessions too."""
    totals = session_means(ratings, ratings.total)
    row_of = {session: row for row, session in enumerate(ratings.sessions)}
    values = np.array([[column[row_of[key]] for column in covariates.values()] for key in totals], dtype=np.float64)
    values = values.reshape(len(totals), len(covariates))
    complete = np.isfinite(values).all(axis=1)
    return _Sessions(
        arm=np.array([arm for arm, _, _ in totals])[complete],
        patient=np.array([patient for _, patient, _ in totals])[complete],
        total=np.array(list(totals.values()), dtype=np.float64)[complete],
        covariates=values[complete],
    )


def _fit(sessions: _Sessions, design: np.ndarray, names: Sequence[str]) -> RemlFit | str:
    """Return the fit, or the reason why there is none."""
    if alike(sessions.total):
        return "all totals are equal: there is nothing to model"
    try:
        fit = fit_reml(sessions.total, design, names, sessions.patient, sessions.arm)
    except (ValueError, np.linalg.LinAlgError) as error:
        return f"no mixed model could be fitted ({error})"
    return fit if fit.converged else fit.problem


def _contrast(
    fit: RemlFit, plan: Plan, arms: Sequence[str], patients_of: Mapping[str, set[str]], size: float
) -> ModelContrast:
    """Return ``plan`` as a linear combination of the fit's terms, which begin with one for each of ``arms``. ``size``:
    the largest total, by which an estimate is told from rounding."""
    weights = np.zeros(len(fit.terms))
    for a, b in plan.pairs:
        if a not in arms or b not in arms:
            return _gap(plan, f"{a if a not in arms else b} has no session in the model")
        if not patients_of[a] & patients_of[b]:
            return _gap(plan, f"{a} and {b} have no patient in common")
        weights[arms.index(a)] += 1 / len(plan.pairs)
        weights[arms.index(b)] -= 1 / len(plan.pairs)
    estimate = float(weights @ np.array([term.estimate for term in fit.terms]))
    estimate = 0.0 if nought(estimate, size) else estimate
    se = math.sqrt(max(float(weights @ fit.covariance @ weights), 0.0))
    term = wald(plan.id, estimate, se)
    return ModelContrast(plan.id, estimate, se, term.ci_low, term.ci_high, term.p, fit.problem)


def _gap(plan: Plan, problem: str) -> ModelContrast:
    return ModelContrast(plan.id, math.nan, math.nan, math.nan, math.nan, math.nan, problem)


def _no_model(plans: Sequence[Plan], problem: str) -> MixedModel:
    return MixedModel([_gap(plan, problem) for plan in plans], [], None)
