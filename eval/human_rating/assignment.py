"""Which sessions are rated, by whom, and in which order."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cbtrain.errors import UserError
from cbtrain.eval.simulation.runner import SimulatedSession

Unit = list[SimulatedSession]
"""Sessions that stay together: one patient and seed in every arm, so that a rater sees both sides of a pair."""

DRAWS = 200
"""Random orders of which the most balanced one is taken."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """``by_rater``: the sessions of each rater in their order; ``drawn``: how many different sessions there are;
    ``shared``: how many of them every rater rates; ``paired``: whether units hold one patient and seed in every arm."""

    by_rater: list[list[SimulatedSession]]
    drawn: int
    shared: int
    paired: bool


def deal(
    sessions: Sequence[SimulatedSession], *, wanted: int | None, raters: int, overlap: int | None, seed: str
) -> Assignment:
    """Draw ``wanted`` sessions (None: all), give ``overlap`` of them (None: all) to every rater and each of the others
    to one rater, pairs kept together; every rater has an order of their own. The same ``seed`` deals the same.

    Raises UserError where ``wanted`` or ``overlap`` cannot be had, or a rater would have nothing to rate.
    """
    rng = random.Random(f"{seed}|draw")
    units, paired = _units(sessions, wanted is not None, rng)
    if wanted is not None:
        units = _draw(units, wanted)
    drawn = sum(map(len, units))
    if overlap is not None and overlap > drawn:
        hint = f"At most {drawn}, or leave it out: then every rater rates all."
        raise UserError(f"{overlap} sessions for every rater, of {drawn}", where="--overlap", hint=hint)
    rng.shuffle(units)
    shared: list[Unit] = []
    while units and sum(map(len, shared)) + len(units[0]) <= (drawn if overlap is None else overlap):
        shared.append(units.pop(0))
    by_rater = [[*shared, *units[rater::raters]] for rater in range(raters)]
    if not all(by_rater):
        hint = "Take fewer --raters or more --sessions, or raise --overlap."
        raise UserError(
            f"{raters} raters, and only {len(units)} sets of sessions to share out", where="--raters", hint=hint
        )
    ordered = [
        in_order([session for unit in hand for session in unit], random.Random(f"{seed}|order|{rater}"))
        for rater, hand in enumerate(by_rater, 1)
    ]
    return Assignment(ordered, drawn, sum(map(len, shared)), paired)


def in_order(sessions: Sequence[SimulatedSession], rng: random.Random) -> list[SimulatedSession]:
    """The most balanced of ``DRAWS`` random orders (see :func:`imbalance`)."""
    return min((rng.sample(sessions, len(sessions)) for _ in range(DRAWS)), key=imbalance)


def imbalance(order: Sequence[SimulatedSession]) -> float:
    """How far an order is from one that favours no arm: the spread of the arms' mean places, the spread of how often
    each arm is the first one met of its pair, and the share of neighbours that are one patient; 0 is best.

    A rater grows tired and stricter or milder on the way, and compares with what they have just read."""
    places: dict[str, list[int]] = defaultdict(list)
    first: dict[tuple[str, int], str] = {}
    for place, session in enumerate(order):
        places[session.arm].append(place)
        first.setdefault((session.patient, session.seed), session.arm)
    means = [sum(own) / len(own) for own in places.values()]
    counts = [sum(arm == own for arm in first.values()) for own in places]
    neighbours = sum(one.patient == other.patient for one, other in itertools.pairwise(order))
    return (max(means) - min(means) + neighbours) / len(order) + (max(counts) - min(counts)) / len(first)


def _units(sessions: Sequence[SimulatedSession], sampling: bool, rng: random.Random) -> tuple[list[Unit], bool]:
    """All sessions in units. Where some are to be drawn, complete units only, in an order that goes round the
    patients; without any complete unit, random ones of one session from every arm."""
    arms = sorted({session.arm for session in sessions})
    groups: dict[tuple[str, int], Unit] = defaultdict(list)
    for session in sessions:
        groups[session.patient, session.seed].append(session)
    complete = [unit for unit in groups.values() if len(unit) == len({one.arm for one in unit}) == len(arms)]
    paired = bool(complete)
    if not sampling:
        return list(groups.values()), paired
    if not complete:
        by_arm = [[session for session in sessions if session.arm == arm] for arm in arms]
        shuffled = [rng.sample(those, len(those)) for those in by_arm]
        return [list(unit) for unit in zip(*shuffled, strict=False)], False
    by_patient: dict[str, list[Unit]] = defaultdict(list)
    for unit in complete:
        by_patient[unit[0].patient].append(unit)
    for units in by_patient.values():
        rng.shuffle(units)
    patients = list(by_patient.values())
    rng.shuffle(patients)
    rounds = max(map(len, patients))
    return [units[turn] for turn in range(rounds) for units in patients if turn < len(units)], paired


def _draw(units: list[Unit], wanted: int) -> list[Unit]:
    size = len(units[0])
    if wanted < size:
        what = f"{wanted} cannot hold one session of each of {size} arms"
        raise UserError(what, where="--sessions", hint=f"At least {size}.")
    if wanted > size * len(units):
        what = f"{wanted} sessions, and only {size * len(units)} with the same number from every arm"
        raise UserError(what, where="--sessions", hint=f"At most {size * len(units)}, or leave it out to take all.")
    return units[: wanted // size]
