"""The 2024 study's own analysis, as published (Tahir 2024, arXiv 2412.00251): for reproduction only.

Means and SDs by group; ``total ~ base + variant + session`` with a random intercept for each patient, by maximum
likelihood, with the session number standardized; Bonferroni over all coefficients, the intercept and the patients'
variance included. The effect of tuning is one main effect pooled over bases (no interaction), and sessions without a
score are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.descriptives import Group, session_groups
from cbtrain.eval.analysis.mixed_models.random_intercept import MixedFit, Term, fit_mixed, wald
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import alike

ITEMS = 11
"""Items of the published total."""

REFERENCE_BASE, REFERENCE_VARIANT = "Llama", "tuned"
"""Reference levels of the published model."""


class DoesNotFit(ValueError):
    """The published analysis does not apply to this table; the message says why."""


@dataclass(frozen=True, slots=True)
class PaperAnalysis:
    """``terms``: the fit's, and the patients' variance divided by the residual variance, as in the study's table.
    ``p_adjusted``: Bonferroni over all ``terms``, by name."""

    groups: tuple[Group, ...]
    fit: MixedFit
    terms: tuple[Term, ...]
    p_adjusted: dict[str, float]


def analyze_as_published(ratings: Ratings) -> PaperAnalysis:
    """Return the published analysis of ``ratings``.

    Raises DoesNotFit if there are fewer than two bases, not exactly two variants, fewer than two patients, an arm
    without base or variant, another number of items, or sessions with several ratings (each row counts as a session).
    """
    bases = sorted({arm.base for arm in ratings.arms.values()}, key=lambda name: (name != REFERENCE_BASE, name))
    variants = sorted({arm.variant for arm in ratings.arms.values()}, key=lambda name: name != REFERENCE_VARIANT)
    if "" in bases or len(bases) < 2 or len(variants) != 2:
        raise DoesNotFit("the published analysis needs at least two bases, each tuned and untuned")
    if len(ratings.item_names) != ITEMS:
        raise DoesNotFit(f"the published total has {ITEMS} items, and this table has {len(ratings.item_names)}")
    if len(ratings.judges) > 1 or len(set(ratings.repeat.tolist())) > 1:
        raise DoesNotFit("the published analysis needs one rating per session, and some sessions have several")
    if len(set(ratings.patient)) < 2:
        raise DoesNotFit("one patient: the variance between patients cannot be estimated")
    rated = np.isfinite(ratings.total)
    totals = ratings.total[rated]
    columns = _design(ratings.only(rated), bases, variants)
    if len(totals) and alike(totals):
        raise DoesNotFit("all totals are equal: there is nothing to model")
    try:
        fit = fit_mixed(totals, np.column_stack(list(columns.values())), list(columns), ratings.patient[rated])
    except ValueError as error:
        raise DoesNotFit(str(error)) from None
    terms = (*fit.terms, _variance_ratio(fit))
    adjusted = {term.term: min(1.0, term.p * len(terms)) if math.isfinite(term.p) else math.nan for term in terms}
    return PaperAnalysis(tuple(session_groups(ratings)), fit, terms, adjusted)


def _design(rated: Ratings, bases: Sequence[str], variants: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the columns of the design by name, float64 ``[rows]`` each; the first of ``bases`` and of ``variants`` is
    the reference level."""
    base = np.array([rated.arms[name].base for name in rated.arm])
    variant = np.array([rated.arms[name].variant for name in rated.arm])
    session = _session_numbers(rated).astype(np.float64)
    columns = {"intercept": np.ones(len(session))}
    columns |= {f"base: {name}": (base == name).astype(np.float64) for name in bases[1:]}
    columns |= {f"variant: {variants[1]}": (variant == variants[1]).astype(np.float64)}
    if len(set(session.tolist())) > 1:
        columns["session"] = (session - session.mean()) / session.std(ddof=1)
    return columns


def _session_numbers(rated: Ratings) -> np.ndarray:
    """Return the number of each row's session, int64 ``[rows]``: that in its course; where no row has one, the seed
    takes its place (the sessions of a patient are counted by it, and the column is standardized)."""
    return np.where(rated.number > 0, rated.number, rated.seed + 1) if rated.number.any() else rated.seed


def _variance_ratio(fit: MixedFit) -> Term:
    """Return the patients' variance divided by the residual variance, with the study's Wald test. That test is not
    valid for a variance at its boundary; a likelihood-ratio test with a mixture as null distribution would be."""
    estimate, se = fit.patient_variance / fit.scale, fit.patient_variance_se / fit.scale
    return wald("patients' variance ratio", estimate, se)
