"""The 2024 study's own analysis, as published (Tahir 2024, arXiv 2412.00251): to reproduce it, not to recommend it.

Means and SDs by group; ``total ~ base + variant + session`` with a random intercept for each patient, by maximum
likelihood, the session standardized; Bonferroni over all coefficients, intercept and variance included, as the study
has it. Its one figure for tuning is a main effect pooled over bases: there is no interaction, and sessions that have no
score are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.descriptives import Group, session_groups
from cbtrain.eval.analysis.mixed_models.random_intercept import MixedFit, Term, fit_mixed, wald
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import alike

ITEMS = 11

REFERENCE = ("Llama", "tuned")
"""Base and variant that the others are compared to."""


class DoesNotFit(ValueError):
    """The published analysis cannot be made from this table."""


@dataclass(frozen=True, slots=True)
class PaperAnalysis:
    """``p_adjusted``: Bonferroni, by term; ``terms`` are the fit's, and the patients' variance as the study's table has
    it (a multiple of the residual variance)."""

    groups: tuple[Group, ...]
    fit: MixedFit
    terms: tuple[Term, ...]
    p_adjusted: dict[str, float]


def analyze_as_published(ratings: Ratings) -> PaperAnalysis:
    """Raises DoesNotFit if arms have no base and variant, there are fewer than two of either, or of patients, or
    sessions were rated more than once: each row would count as a session."""
    bases = sorted({arm.base for arm in ratings.arms.values()})
    variants = sorted({arm.variant for arm in ratings.arms.values()}, key=lambda name: name != REFERENCE[1])
    if "" in bases or len(bases) < 2 or len(variants) != 2:
        raise DoesNotFit("the published analysis needs two bases at least, each tuned and not")
    if len(ratings.item_names) != ITEMS:
        raise DoesNotFit(f"the published total takes {ITEMS} items, and there are {len(ratings.item_names)}")
    if len(ratings.judges) > 1 or len(set(ratings.repeat.tolist())) > 1:
        raise DoesNotFit("the published analysis takes one rating a session, and some have several")
    if REFERENCE[0] in bases:
        bases.remove(REFERENCE[0])
        bases.insert(0, REFERENCE[0])
    if len(set(ratings.patient)) < 2:
        raise DoesNotFit("one patient: no variance between patients can be told")
    rated = np.isfinite(ratings.total)
    base = np.array([ratings.arms[name].base for name in ratings.arm[rated]])
    variant = np.array([ratings.arms[name].variant for name in ratings.arm[rated]])
    session = ratings.session[rated].astype(np.float64)
    columns = {"intercept": np.ones(len(session))}
    columns |= {f"base: {name}": (base == name).astype(np.float64) for name in bases[1:]}
    columns |= {f"variant: {variants[1]}": (variant == variants[1]).astype(np.float64)}
    if len(set(session.tolist())) > 1:  # whole numbers
        columns["session"] = (session - session.mean()) / session.std(ddof=1)
    design = np.column_stack(list(columns.values()))
    if rated.any() and alike(ratings.total[rated]):
        raise DoesNotFit("all totals are equal: there is nothing to model")
    try:
        fit = fit_mixed(ratings.total[rated], design, list(columns), ratings.patient[rated])
    except ValueError as error:
        raise DoesNotFit(str(error)) from None
    terms = (*fit.terms, _variance(fit))
    adjusted = {term.term: min(1.0, term.p * len(terms)) if math.isfinite(term.p) else math.nan for term in terms}
    return PaperAnalysis(tuple(session_groups(ratings)), fit, terms, adjusted)


def _variance(fit: MixedFit) -> Term:
    """Return the patients' variance over the residual one, with the Wald test that the study gives it. Such a test of a
    variance at its boundary is not valid; a likelihood-ratio test with a mixed null distribution would be."""
    estimate, se = fit.patient_variance / fit.scale, fit.patient_variance_se / fit.scale
    return wald("patients' variance ratio", estimate, se)
