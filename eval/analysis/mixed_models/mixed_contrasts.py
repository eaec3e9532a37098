"""A mixed model that checks the contrasts: the same differences from all sessions at once.

``total ~ arm + (1 | patient) + (1 | patient:arm)``, on sessions averaged over judges and repeats. Without the last term
sessions would pass for patients: what an arm does for one patient it does in all of that patient's sessions. Wald
intervals are too narrow with few patients, so that the patients' differences stay primary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.agreement.severity import connected, session_means
from cbtrain.eval.analysis.contrasts import Plan
from cbtrain.eval.analysis.mixed_models.random_intercept import Term, wald
from cbtrain.eval.analysis.mixed_models.reml import Components, RemlFit, fit_reml
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import alike, nought, size_of


@dataclass(frozen=True, slots=True)
class ModelContrast:
    """A planned difference from the model; ``problem`` as :class:`RemlFit` has it. NaN if there is no fit."""

    id: str
    estimate: float
    se: float
    ci_low: float
    ci_high: float
    p: float
    problem: str


@dataclass(frozen=True, slots=True)
class _Sessions:
    """One row a session: arm and patient by name, total as float64 ``[sessions]``, covariates as float64
    ``[sessions, covariates]``."""

    arm: np.ndarray
    patient: np.ndarray
    total: np.ndarray
    covariates: np.ndarray


@dataclass(frozen=True, slots=True)
class MixedModel:
    """``contrasts`` in the order of their plans; ``covariates``: their coefficients, and ``components``: variances of
    patients, of patients by arm and of sessions; nothing of these where there is no fit."""

    contrasts: list[ModelContrast]
    covariates: list[Term]
    components: Components | None


def mixed_model(
    ratings: Ratings, plans: Sequence[Plan], covariates: Mapping[str, np.ndarray] | None = None
) -> MixedModel:
    """Return each of ``plans`` from one model of all arms and ``covariates`` (by name; float ``[rows]``, the same for
    all ratings of a session; where one is NaN the session is left out)."""
    covariates = covariates or {}
    rows = _sessions(ratings, covariates)
    if not connected(ratings):
        return _none(plans, "judges whose severity cannot be told cannot be put into one model")
    arms = [arm for arm in ratings.arms if (rows.arm == arm).any()]
    if len(arms) < 2 or len(set(rows.patient)) < 2:
        return _none(plans, "a mixed model needs two arms and two patients")
    columns = [(rows.arm == arm).astype(float) for arm in arms]
    fit = _fit(rows, np.column_stack([*columns, rows.covariates]), [*arms, *covariates])
    if isinstance(fit, str):
        return _none(plans, fit)
    treated = {arm: set(map(str, rows.patient[rows.arm == arm])) for arm in arms}
    size = size_of(rows.total)
    contrasts = [_contrast(fit, plan, arms, treated, size) for plan in plans]
    return MixedModel(contrasts, list(fit.terms[len(arms) :]), fit.components)


def _sessions(ratings: Ratings, covariates: Mapping[str, np.ndarray]) -> _Sessions:
    """Judges' severities are those of all ``ratings``, whichever sessions have their covariates."""
    means, place = session_means(ratings, ratings.total), {key: row for row, key in enumerate(ratings.sessions)}
    values = np.array([[own[place[key]] for own in covariates.values()] for key in means], dtype=np.float64)
    made = _Sessions(
        np.array([arm for arm, _, _ in means]),
        np.array([patient for _, patient, _ in means]),
        np.array(list(means.values()), dtype=np.float64),
        values.reshape(len(means), len(covariates)),
    )
    known = np.isfinite(made.covariates).all(axis=1)
    return _Sessions(made.arm[known], made.patient[known], made.total[known], made.covariates[known])


def _fit(rows: _Sessions, design: np.ndarray, names: Sequence[str]) -> RemlFit | str:
    """Return the fit, or why there is none."""
    if alike(rows.total):
        return "all totals are equal: there is nothing to model"
    try:
        fit = fit_reml(rows.total, design, names, rows.patient, rows.arm)
    except (ValueError, np.linalg.LinAlgError) as error:
        return f"no mixed model could be fitted ({error})"
    return fit if fit.converged else fit.problem


def _contrast(
    fit: RemlFit, plan: Plan, arms: Sequence[str], treated: Mapping[str, set[str]], size: float
) -> ModelContrast:
    """``size``: the largest total, which tells an estimate from rounding."""
    weights = np.zeros(len(fit.terms))
    for a, b in plan.pairs:
        if a not in arms or b not in arms:
            return _gap(plan, f"{a if a not in arms else b} has no session in the model")
        if not treated[a] & treated[b]:
            return _gap(plan, f"{a} and {b} have no patient in common")
        weights[arms.index(a)] += 1 / len(plan.pairs)
        weights[arms.index(b)] -= 1 / len(plan.pairs)
    estimate = float(weights @ np.array([term.estimate for term in fit.terms]))
    estimate = 0.0 if nought(estimate, size) else estimate
    se = math.sqrt(max(float(weights @ fit.covariance @ weights), 0.0))
    found = wald(plan.id, estimate, se)
    return ModelContrast(plan.id, estimate, se, found.ci_low, found.ci_high, found.p, fit.problem)


def _gap(plan: Plan, problem: str) -> ModelContrast:
    return ModelContrast(plan.id, math.nan, math.nan, math.nan, math.nan, math.nan, problem)


def _none(plans: Sequence[Plan], problem: str) -> MixedModel:
    return MixedModel([_gap(plan, problem) for plan in plans], [], None)
