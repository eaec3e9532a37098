"""Checks of whether differences between arms are differences in session length: longer sessions get higher scores.

Length may itself follow from the therapist (one who closes early does less), so the planned contrasts stay primary.
Three checks are reported with them: a mixed model with ln(turns) as a covariate, contrasts over sessions of at least
six turns, and contrasts over pairs of sessions of about equal length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from cbtrain.eval.analysis.agreement.severity import connected, session_means
from cbtrain.eval.analysis.contrast_plan import Plan
from cbtrain.eval.analysis.contrasts import Contrast, Differences, compare, contrast_of, no_pair_note, with_holm
from cbtrain.eval.analysis.mixed_models.contrast_model import ModelContrast, mixed_model
from cbtrain.eval.analysis.mixed_models.random_intercept import Term
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.resampling import groups_in_order, percentile_interval
from cbtrain.eval.analysis.rounding import ROUNDING, at_most, merged, size_of
from cbtrain.eval.analysis.sessions import Key, SessionOutcome

LEAST_TURNS = 6
"""Fewest turns, of both speakers, of a session in the second check."""

CALIPER = 0.2
"""Largest difference of ln(turns) in a matched pair, in standard deviations over both arms (Austin 2011)."""

MOST_DRAWS = 1000
"""Resamples of the rank correlation at most: each of them is ranked anew."""

ScoredLength = tuple[float, float]
"""Turns and total of one session."""

ByArm = dict[str, dict[str, list[ScoredLength]]]
"""The rated sessions of known length, by arm and patient."""


@dataclass(frozen=True, slots=True)
class ArmLength:
    """Mean turns (of both speakers), their SD (n − 1), and mean words over an arm's sessions, except those that failed
    and have no score."""

    name: str
    sessions: int
    turns_mean: float
    turns_sd: float
    words_mean: float


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Spearman's correlation of turns and total over ``n`` sessions, with a 95 % percentile interval from resampled
    patients."""

    r: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True, slots=True)
class Slope:
    """Points for each unit of ln(turns), with a 95 % Wald interval."""

    slope: float
    se: float
    ci_low: float
    ci_high: float
    p: float


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Contrasts over sessions of ``turns`` turns or more."""

    turns: int
    contrasts: list[Contrast]


@dataclass(frozen=True, slots=True)
class Matched:
    """Contrasts over matched pairs; ``caliper``: the largest difference of ln(turns) in a pair, in SDs over the
    sessions of both arms."""

    caliper: float
    contrasts: list[Contrast]


@dataclass(frozen=True, slots=True)
class Length:
    """``adjusted``: contrasts from the mixed model with ln(turns), whose coefficient is ``covariate``."""

    arms: list[ArmLength]
    spearman: RankCorrelation | None
    covariate: Slope | None
    adjusted: list[ModelContrast]
    at_least: AtLeast
    matched: Matched


def length_analysis(
    ratings: Ratings,
    outcomes: Mapping[Key, SessionOutcome],
    plans: Sequence[Plan],
    draws: int,
    seed: int,
    *,
    with_partial: Ratings | None = None,
) -> Length | None:
    """Return the three checks, the correlation and the lengths by arm.

    Return None if no rated session has a known length, or if judges share too few sessions: their severity would then
    be mistaken for an effect of length. Sessions of unknown length are left out of the checks, but still count for the
    judges' severity. ``with_partial``: the same judges' ratings, with those of sessions that not all of them rated
    (default: ``ratings``).
    """
    if not connected(ratings):
        return None
    turns = np.array([_turns(outcomes, session) for session in ratings.sessions])
    if not np.isfinite(turns).any():
        return None
    model = mixed_model(ratings, plans, {"ln(turns)": np.log(turns)})
    long_enough = ratings.only(turns >= LEAST_TURNS)
    sessions = _by_arm(ratings, turns)
    rated = (with_partial or ratings).rated_sessions
    return Length(
        arms=[_arm_length(name, outcomes, rated) for name in ratings.arms],
        spearman=_correlation(sessions, draws, seed),
        covariate=_slope(model.covariates[0]) if model.covariates else None,
        adjusted=model.contrasts,
        at_least=AtLeast(LEAST_TURNS, compare(long_enough, plans, long_enough.total, draws, seed)),
        matched=_matched(sessions, plans, draws, seed),
    )


def _turns(outcomes: Mapping[Key, SessionOutcome], session: Key) -> float:
    """Return the number of turns of ``session``; NaN if it is not known."""
    outcome = outcomes.get(session)
    return float(outcome.turns) if outcome and outcome.turns else math.nan


def _slope(coefficient: Term) -> Slope:
    return Slope(coefficient.estimate, coefficient.se, coefficient.ci_low, coefficient.ci_high, coefficient.p)


def _arm_length(name: str, outcomes: Mapping[Key, SessionOutcome], rated: Set[Key]) -> ArmLength:
    """Return the lengths of the sessions of the arm called ``name``."""
    counted = [outcome for key, outcome in outcomes.items() if key[0] == name and (key in rated or not outcome.failed)]
    turns = np.array([outcome.turns for outcome in counted], dtype=np.float64)
    words = np.array([outcome.words for outcome in counted], dtype=np.float64)
    return ArmLength(
        name=name,
        sessions=len(counted),
        turns_mean=float(turns.mean()) if len(counted) else math.nan,
        turns_sd=float(turns.std(ddof=1)) if len(counted) > 1 else math.nan,
        words_mean=float(words.mean()) if len(counted) else math.nan,
    )


def _by_arm(ratings: Ratings, turns: np.ndarray) -> ByArm:
    """Return turns and total of each session that has both; ``turns``: float ``[rows]``, NaN if not known."""
    turns_of = dict(zip(ratings.sessions, turns.tolist(), strict=True))
    by_arm = ByArm()
    for session, total in session_means(ratings, ratings.total).items():
        arm, patient, _ = session
        if math.isfinite(turns_of[session]):
            by_arm.setdefault(arm, {}).setdefault(patient, []).append((turns_of[session], total))
    return by_arm


def _correlation(by_arm: ByArm, draws: int, seed: int) -> RankCorrelation | None:
    """Return the rank correlation of turns and totals over all sessions; None if there are fewer than three, or one of
    the two does not vary."""
    by_patient: dict[str, list[ScoredLength]] = {}
    for patients in by_arm.values():
        for patient, sessions in patients.items():
            by_patient.setdefault(patient, []).extend(sessions)
    if not by_patient:
        return None
    sizes = [len(sessions) for sessions in by_patient.values()]
    pooled = np.concatenate([np.array(sessions) for sessions in by_patient.values()])
    pooled[:, 1] = merged(pooled[:, 1])  # totals that are equal but for rounding get the same rank
    if len(pooled) < 3 or _any_constant(pooled):
        return None
    groups = groups_in_order(np.split(pooled, np.cumsum(sizes)[:-1]))
    rng = np.random.default_rng(seed)
    resampled = []
    for _ in range(min(draws, MOST_DRAWS)):
        sample = np.concatenate([groups[index] for index in rng.integers(len(groups), size=len(groups))])
        if not _any_constant(sample):
            resampled.append(_spearman(sample))
    low, high = percentile_interval(np.array(resampled)) if len(groups) > 1 and resampled else (math.nan, math.nan)
    return RankCorrelation(_spearman(pooled), low, high, len(pooled))


def _any_constant(pairs: np.ndarray) -> bool:
    """Return whether a column of ``pairs`` (float ``[sessions, 2]``) has one value only."""
    return bool((pairs == pairs[0]).all(axis=0).any())


def _spearman(pairs: np.ndarray) -> float:
    """Return Spearman's correlation of the two columns of ``pairs``, float ``[sessions, 2]``."""
    return float(np.corrcoef(stats.rankdata(pairs, axis=0), rowvar=False)[0, 1])


def _matched(by_arm: ByArm, plans: Sequence[Plan], draws: int, seed: int) -> Matched:
    """Return each of ``plans`` from sessions matched on length."""
    totals = [total for patients in by_arm.values() for sessions in patients.values() for _, total in sessions]
    size = size_of(np.array(totals))
    contrasts = [
        contrast_of(plan, *_matched_differences(by_arm, plan), size=size, draws=draws, seed=seed) for plan in plans
    ]
    return Matched(CALIPER, with_holm(contrasts))


def _matched_differences(by_arm: ByArm, plan: Plan) -> tuple[Differences, list[str]]:
    """Return the differences of totals between matched sessions, by patient, and a note on each pair of arms that says
    how many sessions were matched. No differences if one of several pairs of arms has no match."""
    differences: dict[str, list[float]] = {}
    notes = []
    for a, b in plan.pairs:
        first, second = by_arm.get(a, {}), by_arm.get(b, {})
        caliper = CALIPER * _sd_of_log_turns([*first.values(), *second.values()])
        matches = 0
        for patient in sorted(first.keys() & second.keys()):
            matched = _match(first[patient], second[patient], caliper)
            if matched:
                differences.setdefault(patient, []).extend(matched)
                matches += len(matched)
        if not matches and len(plan.pairs) > 1:
            return {}, [no_pair_note(a, b)]
        sessions = sum(map(len, first.values()))
        if sessions:
            notes.append(f"{matches} of {sessions} sessions of {a} have a partner of about equal length in {b}")
    return {patient: np.array(values) for patient, values in sorted(differences.items())}, notes


def _match(first: Sequence[ScoredLength], second: Sequence[ScoredLength], caliper: float) -> list[float]:
    """Return the differences of totals, first − second, of one patient's matched sessions with two arms.

    The matching has as many pairs as ``caliper``, a difference of ln(turns), allows; among such matchings its summed
    difference of ln(turns) is smallest (an assignment problem).
    """
    first_sessions, second_sessions = _with_equal_lengths_averaged(first), _with_equal_lengths_averaged(second)
    # Logarithms as whole multiples of ROUNDING: their sums are exact, so equally good matchings tie on every machine.
    first_logs, second_logs = (
        np.round(np.log(sessions[:, 0]) / ROUNDING) for sessions in (first_sessions, second_sessions)
    )
    distances = np.abs(first_logs[:, None] - second_logs)
    allowed = at_most(distances, caliper / ROUNDING, size_of(np.concatenate([first_logs, second_logs])))
    # A pair beyond the caliper costs more than all allowed pairs together.
    costs = np.where(allowed, distances, 1 + distances.max() * min(distances.shape) * 2)
    return [
        float(first_sessions[i, 1] - second_sessions[j, 1])
        for i, j in zip(*optimize.linear_sum_assignment(costs), strict=True)
        if allowed[i, j]
    ]


def _with_equal_lengths_averaged(sessions: Sequence[ScoredLength]) -> np.ndarray:
    """Return turns and total of each session in the order of turns, float64 ``[sessions, 2]``.

    Equally long sessions all get their mean total: they are interchangeable in a matching, and so the result does not
    depend on which of them is matched.
    """
    turns, totals = np.array(sorted(sessions)).T
    _, group, counts = np.unique(turns, return_inverse=True, return_counts=True)
    return np.column_stack([turns, (np.bincount(group, totals) / counts)[group]])


def _sd_of_log_turns(by_patient: Sequence[Sequence[ScoredLength]]) -> float:
    """Return the SD (n − 1) of ln(turns) over all sessions; 0 if there are fewer than two."""
    logs = [math.log(turns) for sessions in by_patient for turns, _ in sessions]
    return float(np.std(logs, ddof=1)) if len(logs) > 1 else 0.0
