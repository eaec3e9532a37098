"""For whom, when and with which simulator: the planned differences by level of severity, phase, simulator and so on.

These results are exploratory: the plan of a study rests on all of its sessions. Every level of every factor is shown,
whatever its result, the number of estimates is reported, and p of the tests of variation is adjusted over all of them
(Holm 1979). A level's own interval says nothing on whether levels differ: that is what the tests are for (Wang et al.
2007, N Engl J Med 357:2189).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cbtrain.eval.analysis.agreement.severity import Judged, judged_means
from cbtrain.eval.analysis.contrast_plan import WITHIN_BASES, Plan
from cbtrain.eval.analysis.contrasts import Contrast, contrast_of, paired_differences
from cbtrain.eval.analysis.moderators import in_level_order
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.resampling import holm
from cbtrain.eval.analysis.rounding import size_of
from cbtrain.eval.analysis.variation import BETWEEN, WITHIN, Test, between_patients, within_patients
from cbtrain.transcripts.source import natural_key
from cbtrain.transcripts.types import PHASES, phase_of

FAMILIES = (*WITHIN_BASES, "pooled")
"""Families whose contrasts are shown by subgroup: those within a base, and their means over bases."""

PHASE, SIMULATOR = "phase", "simulator"
FEW = "fewer than two patients: no interval"

Cell = tuple[str, int]
"""A patient and a slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgroup:
    """A contrast at one ``level`` of ``factor``: mean of the patients' differences with its 95 % t interval, in points.
    None is not known; ``note`` says why."""

    contrast: str
    factor: str
    level: str
    patients: int
    pairs: int
    estimate: float | None
    se: float | None
    ci_low: float | None
    ci_high: float | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """A test of whether a contrast varies over the ``levels`` of ``factor`` that have two patients or more.
    ``p_adjusted``: after Holm over all such tests. Numbers are NaN if ``problem`` is not empty."""

    contrast: str
    factor: str
    levels: list[str]
    patients: int
    method: str
    statistic: float
    df: tuple[int, int]
    p: float
    p_adjusted: float
    problem: str


@dataclass(frozen=True, slots=True)
class Subgroups:
    """``estimates``: how many subgroup estimates were looked at; ``tests``: how many tests of variation gave a p."""

    rows: list[Subgroup]
    variation: list[Variation]
    estimates: int
    tests: int
    note: str


@dataclass(frozen=True, slots=True)
class Factor:
    """What divides sessions: the level of each cell that has one. ``levels`` are in order; ``within``: whether a
    patient has sessions at several levels."""

    name: str
    levels: list[str]
    level_of: Mapping[Cell, str]
    within: bool


def subgroups(ratings: Ratings, plans: Sequence[Plan], seed: int) -> Subgroups | None:
    """Return the planned contrasts of :data:`FAMILIES` by level of each factor; None if there is no such contrast, or
    no factor with two levels. ``seed``: of the permutations."""
    plans, factors = [plan for plan in plans if plan.family in FAMILIES], factors_of(ratings)
    if not plans or not factors:
        return None
    judged, size = judged_means(ratings, ratings.total), size_of(ratings.total)
    rows: list[Subgroup] = []
    variation: list[Variation] = []
    by_factor = [(factor, _by_level(judged, factor)) for factor in factors]
    for plan in plans:
        for factor, by_level in by_factor:
            found = {level: _contrast(by_level[level], plan, size) for level in factor.levels}
            rows += [_row(plan, factor, level, contrast) for level, contrast in found.items()]
            variation.append(_variation(plan, factor, found, size, seed))
    adjusted = holm([test.p for test in variation])
    variation = [replace(test, p_adjusted=p) for test, p in zip(variation, adjusted, strict=True)]
    estimates = sum(row.estimate is not None for row in rows)
    tests = sum(not math.isnan(test.p) for test in variation)
    return Subgroups(rows, variation, estimates, tests, _note(estimates, tests))


def factors_of(ratings: Ratings) -> list[Factor]:
    """Return the factors with two levels or more: columns of patients, then phase and simulator. Sessions without a
    level are in none."""
    cells = list(dict.fromkeys((patient, slot) for _, patient, slot in ratings.sessions))
    factors = []
    for name, values in ratings.moderators.items():
        level_of = {cell: values[cell[0]] for cell in cells if cell[0] in values}
        factors.append(Factor(name, in_level_order(name, level_of.values()), level_of, within=False))
    phases: dict[Cell, str] = {}
    simulators: dict[Cell, str] = {}
    for (_, patient, slot), number, simulator in zip(ratings.sessions, ratings.number, ratings.simulator, strict=True):
        if number:
            phases[patient, slot] = phase_of(int(number))
        if simulator:
            simulators[patient, slot] = str(simulator)
    found = set(phases.values())
    factors.append(Factor(PHASE, [phase for phase in PHASES if phase in found], phases, within=True))
    names = sorted(set(simulators.values()), key=natural_key)
    factors.append(Factor(SIMULATOR, names, simulators, within=True))
    return [factor for factor in factors if len(factor.levels) > 1]


def _by_level(judged: Judged, factor: Factor) -> dict[str, Judged]:
    """Return the sessions of each level."""
    by_level: dict[str, Judged] = {level: {} for level in factor.levels}
    for key, by_judge in judged.items():
        if level := factor.level_of.get(key[1:], ""):
            by_level[level][key] = by_judge
    return by_level


def _contrast(judged: Judged, plan: Plan, size: float) -> Contrast:
    return contrast_of(plan, *paired_differences(judged, plan), size=size, draws=0, seed=0)


def _row(plan: Plan, factor: Factor, level: str, contrast: Contrast) -> Subgroup:
    n = len(contrast.patients)
    note = "no pair of sessions to compare" if n == 0 else FEW if n == 1 else ""
    if n > 1 and contrast.ci_low is None:
        note = "all patients differ by the same amount: no interval"
    return Subgroup(
        contrast=plan.id,
        factor=factor.name,
        level=level,
        patients=n,
        pairs=contrast.pairs,
        estimate=contrast.estimate,
        se=contrast.se,
        ci_low=contrast.ci_low,
        ci_high=contrast.ci_high,
        note=note,
    )


def _variation(plan: Plan, factor: Factor, found: Mapping[str, Contrast], size: float, seed: int) -> Variation:
    """Return the test over the levels of ``found`` that have two patients or more."""
    by_level = {level: contrast.patients for level, contrast in found.items() if len(contrast.patients) > 1}
    test, patients = _within(by_level, size) if factor.within else _between(by_level, size, seed)
    return Variation(
        contrast=plan.id,
        factor=factor.name,
        levels=list(by_level),
        patients=patients,
        method=WITHIN if factor.within else BETWEEN,
        statistic=test.statistic,
        df=test.df,
        p=test.p,
        p_adjusted=math.nan,
        problem=test.problem,
    )


def _between(by_level: Mapping[str, Mapping[str, float]], size: float, seed: int) -> tuple[Test, int]:
    """Return the test between patients, and their number."""
    pairs = [(mean, place) for place, means in enumerate(by_level.values()) for mean in means.values()]
    values, levels = np.array([mean for mean, _ in pairs]), np.array([place for _, place in pairs], dtype=np.int64)
    return between_patients(values, levels, size, seed), len(pairs)


def _within(by_level: Mapping[str, Mapping[str, float]], size: float) -> tuple[Test, int]:
    """Return the test within patients, and the number of those that have pairs at every level."""
    everywhere = sorted(set.intersection(*map(set, by_level.values()))) if by_level else []
    rows = [[means[patient] for means in by_level.values()] for patient in everywhere]
    return within_patients(np.array(rows, dtype=np.float64).reshape(len(everywhere), len(by_level)), size), len(rows)


def _note(estimates: int, tests: int) -> str:
    return (
        f"exploratory: {estimates} subgroup estimates and {tests} tests of variation were looked at, and none decides "
        "anything; p of these tests is adjusted over all of them (Holm)"
    )
