"""Share sessions among raters, several for each session, so that loads are even and raters are linked."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.text.words import count_words

Unit = list[SimulatedSession]
"""Sessions that stay together: one patient and seed in every arm, so that a rater sees both sides of a pair."""

TRIES = 300
"""Number of random plans; the most balanced one is used."""

WORDS_PER_MINUTE = 200
SECONDS_PER_DOMAIN = 20
"""Of the estimate: a rater's speed of reading, and of choosing a point."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``by_rater``: the units of each rater; ``unplaced``: units for which too few raters had room."""

    by_rater: list[list[Unit]]
    unplaced: list[Unit]


def shares(units: Sequence[Unit], room: Sequence[int], per_session: int, rng: random.Random) -> Plan:
    """Share ``units`` so that ``per_session`` raters rate each, none more sessions than their ``room``, which may
    differ: loads are in proportion to it. Of random plans, the one with most units placed, the most even loads, all
    raters linked, and the most even numbers of common sessions is returned (a balanced incomplete block design, as near
    as the numbers allow)."""
    return min((_one_plan(units, room, per_session, rng) for _ in range(TRIES)), key=lambda plan: _badness(plan, room))


def most_units(size: int, room: Sequence[int], per_session: int) -> int:
    """Return how many units of ``size`` sessions fit into ``room`` if ``per_session`` raters rate each."""
    places = [sessions // size for sessions in room]
    count = sum(places) // per_session
    while sum(min(place, count) for place in places) < per_session * count:  # nobody rates a session twice
        count -= 1
    return count


def common_sessions(by_rater: Sequence[Sequence[SimulatedSession]]) -> dict[tuple[int, int], int]:
    """Return, for each two raters by index, the number of sessions that both rate."""
    ids = [{session.id for session in sessions} for sessions in by_rater]
    return {(first, second): len(ids[first] & ids[second]) for first, second in combinations(range(len(ids)), 2)}


def links(raters: int, linked: Callable[[int, int], bool]) -> int:
    """Return into how many groups ``raters`` fall if two of them are joined where ``linked``."""
    group = list(range(raters))
    for first, second in combinations(range(raters), 2):
        if linked(first, second):
            group = [group[first] if one == group[second] else one for one in group]
    return len(set(group))


def words_of(sessions: Sequence[SimulatedSession]) -> int:
    return sum(count_words(turn.text) for session in sessions for turn in session.turns)


def minutes_of(words: int, sessions: int, domains: int) -> int:
    """Return an estimate of the minutes that reading ``words`` and rating ``domains`` of each session takes."""
    return math.ceil(words / WORDS_PER_MINUTE + sessions * domains * SECONDS_PER_DOMAIN / 60)


def _one_plan(units: Sequence[Unit], room: Sequence[int], per_session: int, rng: random.Random) -> Plan:
    raters = range(len(room))
    by_rater: list[list[Unit]] = [[] for _ in raters]
    load = [0] * len(room)
    together: Counter[tuple[int, int]] = Counter()
    expected = max(1.0, len(units) * per_session * (per_session - 1) / max(1, len(room) * (len(room) - 1)))
    unplaced = []
    for unit in rng.sample(units, len(units)):
        free = [rater for rater in raters if load[rater] + len(unit) <= room[rater]]
        if len(free) < per_session:
            unplaced.append(unit)
            continue
        chosen: list[int] = []
        for _ in range(per_session):
            costs = {
                rater: (
                    2 * load[rater] / room[rater] + sum(together[_pair(rater, other)] for other in chosen) / expected,
                    rng.random(),
                )
                for rater in free
                if rater not in chosen
            }
            chosen.append(min(costs, key=costs.__getitem__))
        together.update(_pair(*two) for two in combinations(chosen, 2))
        for rater in chosen:
            by_rater[rater].append(unit)
            load[rater] += len(unit)
    return Plan(by_rater, unplaced)


def _badness(plan: Plan, room: Sequence[int]) -> tuple[float, ...]:
    by_rater = [[session for unit in units for session in unit] for units in plan.by_rater]
    fill = [len(sessions) / most for sessions, most in zip(by_rater, room, strict=True)]
    common = common_sessions(by_rater)
    groups = links(len(room), lambda first, second: common[first, second] > 0)
    mean = sum(common.values()) / max(1, len(common))
    uneven = sum((count - mean) ** 2 for count in common.values())
    return len(plan.unplaced), round(max(fill) - min(fill), 9), groups, uneven


def _pair(first: int, second: int) -> tuple[int, int]:
    return (first, second) if first < second else (second, first)
