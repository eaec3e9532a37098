"""Planned differences between arms, with the patient as the unit.

Sessions of one patient are not independent, so scores are averaged within a patient first: over judges, repeats, and
the sessions that both arms have (paired by patient and slot: seed, session number and simulator). The patients' mean
differences are then compared. The t interval is the primary one. A bootstrap over patients and their sessions and a
sign-flip test, neither of which assumes a distribution, are reported with it. p is adjusted within each family (Holm
1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cbtrain.eval.analysis.agreement.severity import Judged, judged_means
from cbtrain.eval.analysis.contrast_plan import Plan
from cbtrain.eval.analysis.effects import PairedEffect, paired_effect, t_interval
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.resampling import hierarchical_bootstrap, holm, percentile_interval, sign_flip_p
from cbtrain.eval.analysis.rounding import alike, nought, size_of

POINT = "mean over patients of the paired difference"
METHOD = f"{POINT}; 95 % t interval"

Differences = dict[str, np.ndarray]
"""Differences between paired sessions by patient, float64 ``[pairs]`` each."""

LEAST_FOR_BOOTSTRAP = 5
"""Fewest patients for a bootstrap and an effect size. With fewer, a resample says little about other patients, and the
SD that an effect size is divided by is mostly chance."""

FEW = 12
"""With fewer patients, a note says that bootstrap and Wald intervals are too narrow."""

LEAST_FOR_SIGNS = 6
"""Fewest patients with which an exact sign-flip test can give p below .05."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The result of one plan, in points. None marks a value that could not be computed; ``notes`` say why.

    ``patients``: mean difference by patient; ``pairs``: number of paired sessions. ``estimate``: mean of the patients'
    differences. The interval is None if there is one patient, or if all patients differ by the same amount (``se`` is
    then 0). ``p``: two-sided t test; ``p_adjusted``: the same after Holm within ``family``; ``p_sign_flip``:
    two-sided, exact up to 16 patients; ``effect``: from five patients on.
    """

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


def compare(
    ratings: Ratings, plans: Sequence[Plan], values: np.ndarray, draws: int = 10_000, seed: int = 0
) -> list[Contrast]:
    """Return the contrast of each of ``plans``, adjusted by Holm. ``values``: float ``[rows]``, the totals or one item;
    sessions with NaN are left out, and a note says how many."""
    judged, size = judged_means(ratings, values), size_of(values)
    contrasts = [
        contrast_of(plan, *paired_differences(judged, plan), size=size, draws=draws, seed=seed) for plan in plans
    ]
    return with_holm(contrasts)


def contrast_of(
    plan: Plan, differences: Differences, notes: Sequence[str], *, size: float, draws: int, seed: int
) -> Contrast:
    """Return the contrast of ``differences``. ``p_adjusted`` is left to :func:`with_holm`.

    ``notes``: what was left out of ``differences``. ``size``: the largest score that was subtracted, by which
    differences are told from rounding. ``draws``: bootstrap resamples; with 0, bootstrap, sign-flip test and effect
    size are left out.
    """
    notes = list(notes)
    means = {patient: float(np.mean(values)) for patient, values in differences.items()}
    n = len(means)
    contrast = Contrast(id=plan.id, family=plan.family, patients=means, pairs=sum(map(len, differences.values())))
    if n == 0:
        explained = len(plan.pairs) > 1 and notes
        return replace(contrast, notes=notes if explained else ["no pair of sessions to compare", *notes])
    observed = np.array(list(means.values()))
    estimate = 0.0 if nought(observed.mean(), size) else float(observed.mean())
    contrast = replace(contrast, estimate=estimate)
    if n == 1:
        return replace(contrast, method=POINT, notes=["one patient: no interval can be given", *notes])
    if n < LEAST_FOR_SIGNS:
        notes.append(f"{n} patients: a sign-flip test cannot give p below {2 / 2**n:g}")
    if alike(observed, size):
        notes.append("all patients differ by the same amount: no interval and no t test can be given")
        return replace(contrast, se=0.0, p_sign_flip=2 / 2**n if estimate else None, method=POINT, notes=notes)
    interval = t_interval(observed, estimate)
    contrast = replace(contrast, se=interval.se, ci_low=interval.low, ci_high=interval.high, p=interval.p)
    if not draws:
        return replace(contrast, notes=notes)
    contrast = replace(contrast, p_sign_flip=sign_flip_p(observed, seed=seed, size=size))
    if n < LEAST_FOR_BOOTSTRAP:
        notes.append(f"{n} patients: too few for a bootstrap interval and effect sizes")
        return replace(contrast, notes=notes)
    if n < FEW:
        notes.append(f"{n} patients: bootstrap and mixed-model intervals are too narrow; report the t interval")
    low, high = percentile_interval(hierarchical_bootstrap(list(differences.values()), draws, seed))
    effect = paired_effect(observed, size=size)
    return replace(contrast, bootstrap_low=low, bootstrap_high=high, effect=effect, notes=notes)


def with_holm(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """Return ``contrasts`` with p values adjusted within each family (Holm 1979). A contrast with an estimate but no t
    test counts as one of its family."""
    adjusted: dict[int, float] = {}
    for family in dict.fromkeys(contrast.family for contrast in contrasts):
        members = [index for index, contrast in enumerate(contrasts) if contrast.family == family]
        adjusted |= dict(zip(members, holm([_p_for_holm(contrasts[index]) for index in members]), strict=True))
    return [
        replace(contrast, p_adjusted=None if contrast.p is None else adjusted[index])
        for index, contrast in enumerate(contrasts)
    ]


def _p_for_holm(contrast: Contrast) -> float:
    """Return the p that enters Holm's adjustment: 1 if there is an estimate but no t test, NaN if there is neither."""
    if contrast.p is not None:
        return contrast.p
    return math.nan if contrast.estimate is None else 1.0


def paired_differences(judged: Judged, plan: Plan) -> tuple[Differences, list[str]]:
    """Return the differences of each patient that has any, in the order of patients, and notes on what was left out.

    Sessions are paired by patient and number, within each judge: judges differ in severity, so a session is compared
    only with one that the same judge rated. Judges have equal weights. If one of several pairs of arms has no pair of
    sessions, there are no differences.
    """
    differences: dict[str, list[float]] = {}
    pair_counts: dict[tuple[str, str], int] = {}
    notes = []
    for a, b in plan.pairs:
        by_cell = cell_differences(judged, a, b)
        for (patient, _), difference in by_cell.items():
            differences.setdefault(patient, []).append(difference)
        pairs = len(by_cell)
        if not pairs and len(plan.pairs) > 1:
            return {}, [no_pair_note(a, b)]
        unpaired = sum(arm in (a, b) for arm, _, _ in judged) - 2 * pairs
        if unpaired:
            notes.append(f"left out: {unpaired} of the sessions of {a} and {b}, which have no rated partner")
        if pairs:
            pair_counts[a, b] = pairs
    if len(pair_counts) > 1 and max(pair_counts.values()) > 1.2 * min(pair_counts.values()):
        counts = ", ".join(f"{a} {count}" for (a, _), count in pair_counts.items())
        notes.append(f"bases are weighted by their numbers of paired sessions: {counts}")
    return {patient: np.array(values) for patient, values in sorted(differences.items())}, notes


def cell_differences(judged: Judged, a: str, b: str) -> dict[tuple[str, int], float]:
    """Return the difference ``a`` − ``b`` of each patient and slot that the same judge rated with both, in the order of
    patients and slots."""
    first, second = ({key[1:]: by_judge for key, by_judge in judged.items() if key[0] == arm} for arm in (a, b))
    differences = {}
    for cell in sorted(first.keys() & second.keys()):
        by_judge = [first[cell][judge] - second[cell][judge] for judge in first[cell] if judge in second[cell]]
        if by_judge:
            differences[cell] = sum(by_judge) / len(by_judge)
    return differences


def no_pair_note(a: str, b: str) -> str:
    """Return the note on a contrast over several bases that cannot be given because one base lacks it."""
    return f"no session of {a} can be paired with one of {b}: no mean over all bases can be given"
