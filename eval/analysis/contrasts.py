"""Differences between arms with the patient as the unit, from contrasts that are fixed before the scores are looked at.

Sessions of one patient are not independent, so scores are averaged inside a patient first: over sessions that both arms
have (paired by patient and session number or seed), judges and repeats. What is compared is the patients' mean
differences. The t interval is the primary one; a bootstrap over patients and their sessions and a sign-flip test, which
assume no distribution, are reported with it. Holm's adjustment is made inside each family.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from scipy import stats

from cbtrain.eval.analysis.agreement.severity import Judged, judged_means
from cbtrain.eval.analysis.arms import Arm, references
from cbtrain.eval.analysis.effects import PairedEffect, paired_effect
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.resampling import hierarchical_bootstrap, holm, percentile_interval, sign_flip_p
from cbtrain.eval.analysis.rounding import alike, nought, size_of

POINT = "mean over patients of the paired difference"
METHOD = f"{POINT}; 95 % t interval"
Differences = dict[str, np.ndarray]
"""Differences between paired sessions, float64 ``[pairs]``, of each patient."""

LEAST_FOR_BOOTSTRAP = 5
"""Patients below which resampling them says next to nothing of others, and an SD of theirs, by which an effect size is
divided, is mostly chance."""

FEW = 12
"""Patients below which intervals by resampling and by Wald are told to be too narrow."""

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
    """``estimate``: mean of the patients' differences in points; None marks a gap that ``notes`` explain. The interval
    has one where there is one patient, or all differ by the same (``se`` is 0 then). ``p``: t test; ``p_adjusted``:
    Holm inside ``family``; ``p_sign_flip``: two-sided, exact up to 16 patients; ``effect``: from five patients on."""

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
    """Return each treated arm − its reference (:func:`cbtrain.eval.analysis.arms.references`), and those of one variant
    over all bases; treated against treated; and every pair with an arm that is neither."""
    pairs = references(arms)
    treated = sorted((arms[name] for name in pairs), key=lambda arm: (arm.base, arm.variant, arm.name))
    plans = [Plan(_change(arm, arms[pairs[arm.name]]), "tuning", ((arm.name, pairs[arm.name]),)) for arm in treated]
    for variant in dict.fromkeys(arm.variant for arm in treated):
        own = [arm for arm in treated if arm.variant == variant]
        if len({arm.base for arm in own}) > 1 and variant:
            kinds = {arms[pairs[arm.name]].variant for arm in own}
            name = f"all bases: {variant} − {kinds.pop() if len(kinds) == 1 else 'untuned'}"
            plans.append(Plan(name, "pooled", tuple((arm.name, pairs[arm.name]) for arm in own)))
    # A tuned arm without a reference is compared with the other tuned ones all the same.
    count = Counter((arm.base, arm.variant) for arm in arms.values())
    alone = [arm for arm in arms.values() if arm.variant == "tuned" and count[arm.base, "tuned"] == 1]
    tuned = {arm.name: arm for arm in [*treated, *(alone if treated else [])] if arm.name not in pairs.values()}
    for one, other in combinations(sorted(tuned.values(), key=lambda arm: (arm.base, arm.variant, arm.name)), 2):
        plans.append(Plan(_against(one, other), "tuned", ((one.name, other.name),)))
    placed = {name for plan in plans for pair in plan.pairs for name in pair}
    others = [Plan(f"{a} − {b}", "arms", ((a, b),)) for a, b in combinations(arms, 2) if not {a, b} <= placed]
    return _with_own_ids(plans + others)


def _change(arm: Arm, reference: Arm) -> str:
    if not (arm.variant and reference.variant) or arm.base != reference.base:
        return f"{arm.name} − {reference.name}"
    change = f"{arm.variant} − {reference.variant}"
    return f"{arm.base}: {change}" if arm.base else change


def _against(one: Arm, other: Arm) -> str:
    if one.variant == other.variant == "tuned" and one.base and other.base:
        return f"tuned: {one.base} − {other.base}"
    return f"{one.name} − {other.name}"


def _with_own_ids(plans: Sequence[Plan]) -> list[Plan]:
    """``plans`` with the arms' names in place of ids that several share."""
    count = Counter(plan.id for plan in plans)
    return [
        plan
        if count[plan.id] == 1 or len(plan.pairs) > 1
        else replace(plan, id=f"{plan.pairs[0][0]} − {plan.pairs[0][1]}")
        for plan in plans
    ]


def compare(
    ratings: Ratings, plans: Sequence[Plan], values: np.ndarray, draws: int = 10_000, seed: int = 0
) -> list[Contrast]:
    """Return every planned contrast of ``values`` (float ``[rows]``: totals, or an item; NaN is left out and
    counted)."""
    judged, size = judged_means(ratings, values), size_of(values)
    found = [contrast_of(plan, *paired_differences(judged, plan), size=size, draws=draws, seed=seed) for plan in plans]
    return with_holm(found)


def contrast_of(
    plan: Plan, differences: Differences, notes: Sequence[str], *, size: float, draws: int, seed: int
) -> Contrast:
    """Return a contrast from ``differences`` of each patient; ``notes`` say what is not among them. ``size``: the
    largest score that was subtracted, which tells differences from rounding. ``draws`` of 0 leave the bootstrap, the
    sign-flip test and effect sizes out. ``p_adjusted`` is left to :func:`with_holm`."""
    notes = list(notes)
    means = {patient: float(np.mean(own)) for patient, own in differences.items()}
    pairs, n = sum(map(len, differences.values())), len(differences)
    gap = Contrast(plan.id, plan.family, means, pairs)
    if n == 0:
        pooled = len(plan.pairs) > 1 and notes
        return replace(gap, notes=notes if pooled else ["no pair of sessions to compare", *notes])
    observed = np.array(list(means.values()))
    estimate = 0.0 if nought(observed.mean(), size) else float(observed.mean())
    if n == 1:
        return replace(gap, estimate=estimate, method=POINT, notes=["one patient: no interval can be given", *notes])
    if n < LEAST_FOR_SIGNS:
        notes.append(f"{n} patients: a sign-flip test cannot give p below {2 / 2**n:g}")
    if alike(observed, size):
        notes.append("all patients differ by the same amount: no interval and no t test can be given")
        signs = 2 / 2**n if estimate else None
        return replace(gap, estimate=estimate, se=0.0, p_sign_flip=signs, method=POINT, notes=notes)
    se = float(observed.std(ddof=1) / math.sqrt(n))
    made = replace(gap, estimate=estimate, se=se, notes=notes)
    if draws and n < FEW:
        narrow = "bootstrap and mixed-model intervals are too narrow; report the t interval"
        few = "too few for a bootstrap interval and effect sizes"
        notes.append(f"{n} patients: {narrow if n >= LEAST_FOR_BOOTSTRAP else few}")
    if draws and n >= LEAST_FOR_BOOTSTRAP:
        low, high = percentile_interval(hierarchical_bootstrap(list(differences.values()), draws, seed))
        made = replace(made, bootstrap_low=low, bootstrap_high=high)
    margin = float(stats.t.ppf(0.975, n - 1)) * se
    p = float(2 * stats.t.sf(abs(estimate) / se, n - 1))
    made = replace(made, ci_low=estimate - margin, ci_high=estimate + margin, p=p)
    if not draws:
        return made
    signs = sign_flip_p(observed, seed=seed, size=size)
    effect = paired_effect(observed, size=size) if n >= LEAST_FOR_BOOTSTRAP else None
    return replace(made, p_sign_flip=signs, effect=effect)


def with_holm(found: Sequence[Contrast]) -> list[Contrast]:
    """``found`` with p values adjusted inside each family; contrasts with an estimate and no t test count too."""
    adjusted: dict[int, float] = {}
    for family in dict.fromkeys(contrast.family for contrast in found):
        places = [place for place, contrast in enumerate(found) if contrast.family == family]
        adjusted |= dict(zip(places, holm([_p_of(found[place]) for place in places]), strict=True))
    return [
        replace(contrast, p_adjusted=None if contrast.p is None else adjusted[place])
        for place, contrast in enumerate(found)
    ]


def _p_of(contrast: Contrast) -> float:
    """Return the p that Holm's adjustment uses for it; NaN if there is nothing to test."""
    untested = math.nan if contrast.estimate is None else 1.0
    return untested if contrast.p is None else contrast.p


def paired_differences(judged: Judged, plan: Plan) -> tuple[Differences, list[str]]:
    """Return differences of each patient that has any, in the patients' order, and what was left out.

    Sessions are paired by patient and number, within each judge: judges differ in severity, so a session is compared
    only with one that the same judge rated. Judges weigh the same.
    """
    own: dict[str, list[float]] = {}
    notes = []
    counted: dict[tuple[str, str], int] = {}
    for a, b in plan.pairs:
        first, second = ({key[1:]: by for key, by in judged.items() if key[0] == arm} for arm in (a, b))
        pairs = 0
        for cell in sorted(first.keys() & second.keys()):
            by_judge = [first[cell][judge] - second[cell][judge] for judge in first[cell] if judge in second[cell]]
            if by_judge:
                own.setdefault(cell[0], []).append(sum(by_judge) / len(by_judge))
                pairs += 1
        counted[a, b] = pairs
        alone = len(first) + len(second) - 2 * pairs
        if not pairs and len(plan.pairs) > 1:
            return {}, [f"{a} and {b} have no pair: there is no mean over all bases"]
        if alone:
            notes.append(f"left out: {alone} of the sessions of {a} and {b}, which have no rated partner")
    counts = {pair: count for pair, count in counted.items() if count}
    if len(counts) > 1 and max(counts.values()) > 1.2 * min(counts.values()):
        told = ", ".join(f"{a} {count}" for (a, _), count in counts.items())
        notes.append(f"bases count by their pairs of sessions: {told}")
    return {patient: np.array(found) for patient, found in sorted(own.items())}, notes
