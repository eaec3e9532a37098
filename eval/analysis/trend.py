"""Totals over the course of a therapy: by phase, and as slopes on the session's number.

Slopes are summary measures (Matthews et al. 1990, BMJ 300:230): a least-squares line for each patient, whose slopes are
then compared with the patient as the unit, so sessions of one patient are never counted as independent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.agreement.severity import judged_means, session_means
from cbtrain.eval.analysis.contrast_plan import Plan
from cbtrain.eval.analysis.contrasts import Contrast, Differences, cell_differences, contrast_of, with_holm
from cbtrain.eval.analysis.effects import TInterval, t_interval
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import alike, size_of
from cbtrain.eval.analysis.sessions import Key
from cbtrain.transcripts.types import PHASES, phase_of

LEAST_NUMBERS = 3
"""Fewest different session numbers in a study for a trend."""

Points = dict[str, list[tuple[int, float]]]
"""By patient: session numbers, and totals or differences of totals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPhase:
    """The rated sessions of an arm in a phase: their number ``n``, their patients, mean and SD (n − 1) of the totals.
    NaN if there are too few sessions."""

    name: str
    phase: str
    n: int
    patients: int
    mean: float
    sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTrend:
    """The mean of the patients' slopes, in points for each session, with a 95 % t interval and t test; NaN if there are
    too few patients. ``patients``: those with sessions of two numbers or more; ``sessions``: theirs."""

    name: str
    patients: int
    sessions: int
    slope: float
    se: float
    ci_low: float
    ci_high: float
    p: float


@dataclass(frozen=True, slots=True)
class Trend:
    """``numbers``: of the sessions; ``contrasts``: differences of slopes, adjusted by Holm in each family."""

    numbers: list[int]
    arms: list[ArmTrend]
    contrasts: list[Contrast]
    method: str = "least squares of the total on the session's number for each patient; t over the patients' slopes"


def by_phase(ratings: Ratings) -> list[ArmPhase]:
    """Return the totals of each arm in each phase; none if fewer than two phases are known."""
    number_of = _numbers(ratings)
    found = {phase_of(number) for number in number_of.values()}
    if len(found) < 2:
        return []
    totals: dict[tuple[str, str], list[float]] = defaultdict(list)
    patients: dict[tuple[str, str], set[str]] = defaultdict(set)
    for key, total in session_means(ratings, ratings.total).items():
        if key in number_of:
            place = (key[0], phase_of(number_of[key]))
            totals[place].append(total)
            patients[place].add(key[1])
    rows = []
    for arm in ratings.arms:
        for phase in (phase for phase in PHASES if phase in found):
            values = np.array(totals[arm, phase])
            n = len(values)
            mean, sd = float(values.mean()) if n else math.nan, float(values.std(ddof=1)) if n > 1 else math.nan
            rows.append(ArmPhase(name=arm, phase=phase, n=n, patients=len(patients[arm, phase]), mean=mean, sd=sd))
    return rows


def trend(ratings: Ratings, plans: Sequence[Plan]) -> Trend | None:
    """Return the slopes of each arm and their planned differences; None with fewer than three session numbers.

    A difference is of the slopes over the sessions that both arms have, rated by the same judge; over several bases,
    the mean of a patient's differences.
    """
    number_of, size = _numbers(ratings), size_of(ratings.total)
    numbers = sorted(set(number_of.values()))
    if len(numbers) < LEAST_NUMBERS:
        return None
    means = session_means(ratings, ratings.total)
    arms = []
    for arm in ratings.arms:
        points: Points = defaultdict(list)
        for key, total in means.items():
            if key[0] == arm and key in number_of:
                points[key[1]].append((number_of[key], total))
        arms.append(_arm_trend(arm, points, size))
    judged = judged_means(ratings, ratings.total)
    cell_numbers = {(patient, slot): number for (_, patient, slot), number in number_of.items()}
    contrasts = []
    for plan in plans:
        slopes: dict[str, list[float]] = defaultdict(list)
        for a, b in plan.pairs:
            by_patient: Points = defaultdict(list)
            for cell, difference in cell_differences(judged, a, b).items():
                if cell in cell_numbers:
                    by_patient[cell[0]].append((cell_numbers[cell], difference))
            for patient, slope in _slopes(by_patient).items():
                slopes[patient].append(slope)
        differences: Differences = {patient: np.array(values) for patient, values in sorted(slopes.items())}
        contrasts.append(contrast_of(plan, differences, [], size=size, draws=0, seed=0))
    return Trend(numbers, arms, with_holm(contrasts))


def _numbers(ratings: Ratings) -> dict[Key, int]:
    """Return the number of each session that has one."""
    rows = zip(ratings.sessions, ratings.number.tolist(), strict=True)
    return {session: number for session, number in rows if number}


def _arm_trend(arm: str, points: Points, size: float) -> ArmTrend:
    slopes = _slopes(points)
    values, n = np.array(list(slopes.values())), len(slopes)
    slope = float(values.mean()) if n else math.nan
    sessions = sum(len(points[patient]) for patient in slopes)
    t = t_interval(values, slope) if n > 1 and not alike(values, size) else TInterval(*[math.nan] * 4)
    return ArmTrend(name=arm, patients=n, sessions=sessions, slope=slope, se=t.se, ci_low=t.low, ci_high=t.high, p=t.p)


def _slopes(points: Points) -> dict[str, float]:
    """Return the least-squares slope of each patient who has points at two session numbers or more."""
    slopes = {}
    for patient, rows in sorted(points.items()):
        number, value = np.array(rows, dtype=np.float64).T
        if len(set(number)) > 1:
            centred = number - number.mean()
            slopes[patient] = float(centred @ value / (centred @ centred))
    return slopes
