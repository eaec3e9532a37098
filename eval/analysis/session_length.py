"""Whether differences between arms are differences in length: longer dialogues are scored higher.

Length may follow from the therapist (one who closes early does less), so nothing here replaces the planned contrasts.
Three checks are reported with them: a mixed model with ln(turns) as a covariate, sessions of at least six turns, and
pairs of sessions of about equal length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import astuple, dataclass

import numpy as np
from scipy import optimize, stats

from cbtrain.eval.analysis.agreement.severity import connected, session_means
from cbtrain.eval.analysis.contrasts import (
    Contrast,
    Differences,
    Plan,
    compare,
    contrast_of,
    with_holm,
)
from cbtrain.eval.analysis.mixed_models.mixed_contrasts import ModelContrast, mixed_model
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.resampling import groups_in_order, percentile_interval
from cbtrain.eval.analysis.rounding import ROUNDING, at_most, merged, size_of
from cbtrain.eval.analysis.sessions import Key, SessionOutcome

LEAST_TURNS = 6
CALIPER = 0.2
"""Largest difference of ln(turns) in a matched pair, in standard deviations over both arms (Austin 2011)."""


@dataclass(frozen=True, slots=True)
class ArmLength:
    """Turns of both speakers and words of a session, over sessions but those that failed without a score; SD with
    n − 1."""

    name: str
    sessions: int
    turns_mean: float
    turns_sd: float
    words_mean: float


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Spearman's, with a percentile interval from resampled patients."""

    r: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True, slots=True)
class Slope:
    """Points for each unit of ln(turns), with its Wald interval."""

    slope: float
    se: float
    ci_low: float
    ci_high: float
    p: float


@dataclass(frozen=True, slots=True)
class AtLeast:
    turns: int
    contrasts: list[Contrast]


@dataclass(frozen=True, slots=True)
class Matched:
    """``caliper``: the largest difference of ln(turns) in a pair, in SDs over the sessions of both arms."""

    caliper: float
    contrasts: list[Contrast]


@dataclass(frozen=True, slots=True)
class Length:
    """``covariate`` is of the mixed model that gives ``adjusted``."""

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
    known: Ratings | None = None,
) -> Length | None:
    """Return None if no rated session's length is known, or judges share too few sessions: then severity would pass for
    length. Sessions of unknown length are left out, but tell judges' severity with the others. ``known``: what the same
    judges also gave, for sessions that not all of them rated."""
    if not connected(ratings):
        return None
    turns = np.array([_turns(outcomes, session) for session in ratings.sessions])
    if not np.isfinite(turns).any():
        return None
    model = mixed_model(ratings, plans, {"ln(turns)": np.log(turns)})
    long_enough = ratings.only(turns >= LEAST_TURNS)
    sessions = _sessions(ratings, turns)
    return Length(
        arms=[_arm(name, outcomes, (known or ratings).rated_sessions) for name in ratings.arms],
        spearman=_correlation(sessions, draws, seed),
        covariate=Slope(*astuple(model.covariates[0])[1:]) if model.covariates else None,
        adjusted=model.contrasts,
        at_least=AtLeast(LEAST_TURNS, compare(long_enough, plans, long_enough.total, draws, seed)),
        matched=_matched(sessions, plans, draws, seed),
    )


def _turns(outcomes: Mapping[Key, SessionOutcome], session: Key) -> float:
    found = outcomes.get(session)
    return float(found.turns) if found and found.turns else math.nan


def _arm(name: str, outcomes: Mapping[Key, SessionOutcome], rated: Set[Key]) -> ArmLength:
    own = [found for key, found in outcomes.items() if key[0] == name and (key in rated or not found.failed)]
    turns = np.array([session.turns for session in own], dtype=np.float64)
    words = np.array([session.words for session in own], dtype=np.float64)
    return ArmLength(
        name,
        len(own),
        float(turns.mean()) if len(own) else math.nan,
        float(turns.std(ddof=1)) if len(own) > 1 else math.nan,
        float(words.mean()) if len(own) else math.nan,
    )


BySession = dict[str, dict[str, list[tuple[float, float]]]]
"""(turns, total) of rated sessions, by arm and patient."""


def _sessions(ratings: Ratings, turns: np.ndarray) -> BySession:
    lengths, found = dict(zip(ratings.sessions, turns.tolist(), strict=True)), BySession()
    for session, total in session_means(ratings, ratings.total).items():
        arm, patient, _ = session
        if math.isfinite(lengths[session]):
            found.setdefault(arm, {}).setdefault(patient, []).append((lengths[session], total))
    return found


def _correlation(sessions: BySession, draws: int, seed: int) -> RankCorrelation | None:
    by_patient: dict[str, list[tuple[float, float]]] = {}
    for patients in sessions.values():
        for patient, own in patients.items():
            by_patient.setdefault(patient, []).extend(own)
    groups = [np.array(own) for own in by_patient.values()]
    both = np.concatenate(groups) if groups else np.empty((0, 2))
    both[:, 1] = merged(both[:, 1])  # from here on equal totals are equal, and ranks have their ties
    groups = groups_in_order(np.split(both, np.cumsum([len(own) for own in groups])[:-1])) if groups else []
    if len(both) < 3 or (both == both[0]).all(axis=0).any():
        return None
    rng = np.random.default_rng(seed)
    resampled = []
    for _ in range(min(draws, 1000)):
        drawn = np.concatenate([groups[place] for place in rng.integers(len(groups), size=len(groups))])
        if not (drawn == drawn[0]).all(axis=0).any():
            resampled.append(_spearman(drawn))
    low, high = percentile_interval(np.array(resampled)) if len(groups) > 1 and resampled else (math.nan, math.nan)
    return RankCorrelation(_spearman(both), low, high, len(both))


def _spearman(both: np.ndarray) -> float:
    return float(np.corrcoef(stats.rankdata(both, axis=0), rowvar=False)[0, 1])


def _matched(sessions: BySession, plans: Sequence[Plan], draws: int, seed: int) -> Matched:
    size = size_of(np.array([total for arm in sessions.values() for own in arm.values() for _, total in own]))
    found = [contrast_of(plan, *_matches(sessions, plan), size=size, draws=draws, seed=seed) for plan in plans]
    return Matched(CALIPER, with_holm(found))


def _spread(sessions: Sequence[list[tuple[float, float]]]) -> float:
    """SD of ln(turns) over all ``sessions`` (turns and total, by patient)."""
    lengths = [math.log(turns) for own in sessions for turns, _ in own]
    return float(np.std(lengths, ddof=1)) if len(lengths) > 1 else 0.0


def _by_length(own: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return turns and total of each session of ``own`` in the order of turns, float64 ``[sessions, 2]``; the totals of
    equally long sessions are their mean."""
    turns, totals = np.array(sorted(own)).T
    _, place, count = np.unique(turns, return_inverse=True, return_counts=True)
    return np.column_stack([turns, (np.bincount(place, totals) / count)[place]])


def _matches(sessions: BySession, plan: Plan) -> tuple[Differences, list[str]]:
    """Within each patient, as many pairs of sessions of the two arms as the caliper allows, and of such pairings the
    one whose lengths are closest. Sessions of a patient with an arm that are equally long could stand in for each
    other, so each of them has their mean total: which of them is paired with which changes nothing."""
    own: dict[str, list[float]] = {}
    notes = []
    for a, b in plan.pairs:
        first, second = sessions.get(a, {}), sessions.get(b, {})
        made, caliper = 0, CALIPER * _spread([*first.values(), *second.values()])
        for patient in sorted(first.keys() & second.keys()):
            one, other = _by_length(first[patient]), _by_length(second[patient])
            # Logarithms in whole steps: many pairings are equally close, and only exact sums say so everywhere.
            lengths, others = (np.round(np.log(own[:, 0]) / ROUNDING) for own in (one, other))
            gaps = np.abs(lengths[:, None] - others)
            allowed = at_most(gaps, caliper / ROUNDING, size_of(np.concatenate([lengths, others])))
            # A forbidden pair costs more than all allowed ones together.
            costs = np.where(allowed, gaps, 1 + gaps.max() * min(gaps.shape) * 2)
            for i, j in zip(*optimize.linear_sum_assignment(costs), strict=True):
                if allowed[i, j]:
                    own.setdefault(patient, []).append(float(one[i, 1] - other[j, 1]))
                    made += 1
        if not made and len(plan.pairs) > 1:
            return {}, [f"{a} and {b} have no pair: there is no mean over all bases"]
        count = sum(map(len, first.values()))
        if count:
            notes.append(f"{made} of {count} sessions of {a} have a partner of about equal length in {b}")
    return {patient: np.array(found) for patient, found in sorted(own.items())}, notes
