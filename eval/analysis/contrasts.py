"""Differences between arms with the patient as the unit, from contrasts that are fixed before the scores are looked at.

Sessions of one patient are not independent, so scores are averaged inside a patient first: over sessions that both arms
have (paired by patient and session number or seed), judges and repeats. What is compared is the patients' mean
differences. The t interval is the primary one; a bootstrap over patients and their sessions and a sign-flip test, which
assume no distribution, stand beside it. Holm's adjustment holds inside each family.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from scipy import stats

from cbtrain.eval.analysis.effects import PairedEffect, paired_effect
from cbtrain.eval.analysis.ratings import Arm, Ratings
from cbtrain.eval.analysis.resampling import hierarchical_bootstrap, holm, percentile_interval, sign_flip_p

METHOD = "mean over patients of the paired difference; 95 % t interval"
LEAST_FOR_SIGNS = 6
"""Patients from which on an exact sign-flip test can give p below .05."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``a − b`` for arms by name; several pairs are averaged inside each patient."""

    id: str
    family: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Contrast:
    """``estimate``: mean of the patients' differences in points; None marks a gap that ``notes`` explain. ``p``: t
    test; ``p_adjusted``: Holm inside ``family``; ``p_sign_flip``: two-sided, exact up to 16 patients."""

    id: str
    family: str
    patients: dict[str, float]
    pairs: int
    estimate: float | None = None
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    method: str = METHOD
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    p_sign_flip: float | None = None
    effect: PairedEffect | None = None
    notes: list[str] = field(default_factory=list)


def plan_contrasts(arms: Mapping[str, Arm]) -> list[Plan]:
    """Tuned − instruct for each base and over all of them; tuned against tuned; where arms have no such names, every
    pair of them."""
    by = {(arm.base, arm.variant): name for name, arm in arms.items() if arm.variant}
    bases = sorted({base for base, _ in by})
    both = [base for base in bases if (base, "tuned") in by and (base, "instruct") in by]
    if not both:
        return [Plan(f"{a} − {b}", "arms", ((a, b),)) for a, b in combinations(arms, 2)]
    tuning = tuple((by[base, "tuned"], by[base, "instruct"]) for base in both)
    names = [f"{base}: tuned − instruct" if base else "tuned − base" for base in both]
    plans = [Plan(name, "tuning", (pair,)) for name, pair in zip(names, tuning, strict=True)]
    if len(both) > 1:
        plans.append(Plan("all bases: tuned − instruct", "pooled", tuning))
    tuned = [base for base in bases if (base, "tuned") in by]
    for one, other in combinations(tuned, 2):
        plans.append(Plan(f"tuned: {one} − {other}", "tuned", ((by[one, "tuned"], by[other, "tuned"]),)))
    return plans


def compare(
    ratings: Ratings, plans: Sequence[Plan], values: np.ndarray, draws: int = 10_000, seed: int = 0
) -> list[Contrast]:
    """Every planned contrast of ``values`` (float ``[rows]``: totals, or an item; NaN is left out and counted)."""
    found = [_contrast(ratings, plan, values, draws, seed) for plan in plans]
    for family in dict.fromkeys(plan.family for plan in plans):
        places = [place for place, contrast in enumerate(found) if contrast.family == family]
        raw = [p if (p := found[place].p) is not None else math.nan for place in places]
        for place, adjusted in zip(places, holm(raw), strict=True):
            found[place] = replace(found[place], p_adjusted=None if math.isnan(adjusted) else adjusted)
    return found


def _contrast(ratings: Ratings, plan: Plan, values: np.ndarray, draws: int, seed: int) -> Contrast:
    differences, notes = _differences(ratings, plan, values)
    means = {patient: float(np.mean(own)) for patient, own in differences.items()}
    pairs, n = sum(map(len, differences.values())), len(differences)
    gap = Contrast(plan.id, plan.family, means, pairs)
    if n == 0:
        return replace(gap, notes=["no patient has a session in both arms", *notes])
    observed = np.array(list(means.values()))
    estimate = float(observed.mean())
    if n == 1:
        return replace(gap, estimate=estimate, notes=["one patient: no interval can be given", *notes])
    if n < LEAST_FOR_SIGNS:
        notes.append(f"{n} patients: a sign-flip test cannot give p below {2 / 2**n:g}")
    se = float(observed.std(ddof=1) / math.sqrt(n))
    low, high = percentile_interval(hierarchical_bootstrap(list(differences.values()), draws, seed))
    made = replace(gap, estimate=estimate, se=se, bootstrap_low=low, bootstrap_high=high, notes=notes)
    if se == 0:
        notes.append("all patients differ by the same amount: the interval is a point and p is not defined")
        return replace(made, ci_low=estimate, ci_high=estimate)
    margin = float(stats.t.ppf(0.975, n - 1)) * se
    return replace(
        made,
        ci_low=estimate - margin,
        ci_high=estimate + margin,
        p=float(2 * stats.t.sf(abs(estimate) / se, n - 1)),
        p_sign_flip=sign_flip_p(observed, seed=seed),
        effect=paired_effect(observed),
    )


def _differences(ratings: Ratings, plan: Plan, values: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
    """Paired differences of each patient that has any, in the patients' order, and what was left out."""
    own: dict[str, list[float]] = {}
    notes = []
    for a, b in plan.pairs:
        first, second = session_means(ratings, values, a), session_means(ratings, values, b)
        both = sorted(first.keys() & second.keys())
        alone = len(first.keys() ^ second.keys())
        if alone:
            notes.append(f"left out: {alone} of the sessions of {a} and {b}, which have no rated partner")
        for patient, session in both:
            own.setdefault(patient, []).append(first[patient, session] - second[patient, session])
    return {patient: np.array(found) for patient, found in sorted(own.items())}, notes


def session_means(ratings: Ratings, values: np.ndarray, arm: str) -> dict[tuple[str, int], float]:
    """Mean over judges and repeats of each rated session of an arm, by patient and number."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in np.flatnonzero((ratings.arm == arm) & np.isfinite(values)):
        found.setdefault((str(ratings.patient[row]), int(ratings.session[row])), []).append(float(values[row]))
    return {key: sum(scores) / len(scores) for key, scores in found.items()}
