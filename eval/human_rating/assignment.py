"""Assign sessions to raters, in balanced random orders."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cbtrain.errors import UserError
from cbtrain.eval.human_rating.workload import Unit, most_units, shares
from cbtrain.eval.simulation.runner import SimulatedSession

DRAWS = 200
"""Number of random orders that are drawn; the most balanced one is used."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """``by_rater``: the sessions of each rater in their order; ``drawn``: number of different sessions; ``shared``:
    number of those that every rater rates; ``paired``: whether units hold one patient and seed in every arm."""

    by_rater: list[list[SimulatedSession]]
    drawn: int
    shared: int
    paired: bool


@dataclass(frozen=True, slots=True)
class AssignmentSettings:
    """Draw ``sessions`` at random (None: take all, or as many as ``workload`` has room for). Give ``overlap`` of them
    (None: all, or none with one of the next two) to each of the ``raters``, and each of the others to ``per_session``
    raters (None: to one; without ``overlap`` and with a workload, to two). ``workload``: the most sessions of each
    rater; empty: no limit."""

    sessions: int | None = None
    raters: int = 2
    overlap: int | None = None
    seed: int = 0
    per_session: int | None = None
    workload: tuple[int, ...] = ()

    @property
    def every_rater_all(self) -> bool:
        """Whether every rater rates every session that is drawn."""
        return self.overlap is None and self.per_session is None and not self.workload

    @property
    def raters_of_each(self) -> int:
        """The number of raters of a session that is not for all."""
        if self.per_session is not None:
            return self.per_session
        return min(2, self.raters) if self.workload and self.overlap is None else 1

    @property
    def for_all(self) -> int | None:
        """The number of sessions for every rater; None: all."""
        return self.overlap if self.overlap is not None or self.every_rater_all else 0

    def words(self) -> list[object]:
        """Return what an assignment depends on; of settings that were not given and that older versions did not have,
        nothing."""
        later = [self.per_session, self.workload] if self.per_session is not None or self.workload else []
        return [self.sessions, self.raters, self.overlap, *later]


def assign(sessions: Sequence[SimulatedSession], settings: AssignmentSettings, random_key: str) -> Assignment:
    """Draw sessions and assign them to raters, pairs kept together, each rater with an order of their own. The same
    sessions, settings and ``random_key`` give the same assignment.

    Raises UserError if there are too few sessions for ``settings``, more than there is room for, or a rater would have
    none.
    """
    rng = random.Random(f"{random_key}|draw")
    units, paired = _units(sessions, settings.sessions is not None, rng)
    if settings.sessions is not None:
        units = _draw(units, settings.sessions)
    elif settings.workload and not _fits(units, settings):
        units, paired = _units(sessions, True, rng)
        units = units[: _room_for(len(units[0]), settings)]
    drawn = sum(map(len, units))
    overlap = settings.for_all
    if overlap is not None and overlap > drawn:
        hint = f"At most {drawn}, or leave it out: then every rater rates all."
        raise UserError(f"{overlap} sessions for every rater, but there are only {drawn}", where="--overlap", hint=hint)
    rng.shuffle(units)
    shared: list[Unit] = []
    while units and sum(map(len, shared)) + len(units[0]) <= (drawn if overlap is None else overlap):
        shared.append(units.pop(0))
    by_rater = [[*shared, *own] for own in _shared_out(units, shared, settings, rng)]
    if not all(by_rater):
        hint = "Take fewer --raters or more --sessions, or raise --overlap."
        what = f"{settings.raters} raters, but only {len(units)} sets of sessions to share among them"
        raise UserError(what, where="--raters", hint=hint)
    ordered = [
        in_order([session for unit in rater_units for session in unit], random.Random(f"{random_key}|order|{rater}"))
        for rater, rater_units in enumerate(by_rater, 1)
    ]
    return Assignment(ordered, drawn, sum(map(len, shared)), paired)


def _shared_out(
    units: list[Unit], shared: Sequence[Unit], settings: AssignmentSettings, rng: random.Random
) -> list[list[Unit]]:
    """Return the ``units`` of each rater, beside those ``shared`` by all. Raises UserError if there is no room."""
    raters, each = settings.raters, settings.raters_of_each
    if each > raters:
        raise UserError(f"{each} raters for a session, but there are only {raters}", where="--ratings-per-session")
    if settings.per_session is None and not settings.workload:
        return [units[rater::raters] for rater in range(raters)]
    common = sum(map(len, shared))
    room = [sessions - common for sessions in settings.workload] or [max(1, sum(map(len, units)))] * raters
    if min(room) <= 0 and units:
        what = f"a rater has room for {min(room) + common} sessions, and {common} are for every rater"
        raise UserError(what, where="--overlap", hint="Lower it, or raise --per-rater or --workload.")
    plan = shares(units, room, each, rng)
    if plan.unplaced:
        fits = len(units) + len(shared) - len(plan.unplaced)
        size = max(map(len, [*units, *shared]))
        what = f"the raters have no room for {sum(map(len, plan.unplaced))} of the sessions, {each} ratings of each"
        hint = f"Take at most {fits * size} --sessions, or raise --per-rater or --workload."
        raise UserError(what, where="--sessions", hint=hint)
    return plan.by_rater


def _fits(units: Sequence[Unit], settings: AssignmentSettings) -> bool:
    """Return whether all ``units`` fit into the workload, if the largest stands for all."""
    return len(units) <= _room_for(max(map(len, units)), settings)


def _room_for(size: int, settings: AssignmentSettings) -> int:
    """Return how many units of ``size`` sessions the workload has room for, those for every rater included. Raises
    UserError if that is none."""
    common = (settings.for_all or 0) // size
    room = [sessions - common * size for sessions in settings.workload]
    count = common + most_units(size, room, settings.raters_of_each) if min(room) >= 0 else 0
    if not count:
        what = f"no room for one session of each of {size} arms" if size > 1 else "no room for a session"
        raise UserError(what, where="--workload", hint="Raise it, or lower --ratings-per-session or --overlap.")
    return count


def in_order(sessions: Sequence[SimulatedSession], rng: random.Random) -> list[SimulatedSession]:
    """Return the most balanced of ``DRAWS`` random orders (see :func:`imbalance`)."""
    return min((rng.sample(sessions, len(sessions)) for _ in range(DRAWS)), key=imbalance)


def imbalance(order: Sequence[SimulatedSession]) -> float:
    """Return how much ``order`` favours an arm; 0 is best. It adds up the spread of the arms' mean positions, the
    spread of how often each arm comes first in its pair, and the share of neighbours that have the same patient.

    Raters become tired, stricter or milder on the way, and compare a session with the one they have just read."""
    positions: dict[str, list[int]] = defaultdict(list)
    first_arm: dict[tuple[str, int], str] = {}
    for position, session in enumerate(order):
        positions[session.arm].append(position)
        first_arm.setdefault((session.patient, session.slot), session.arm)
    means = [sum(arm_positions) / len(arm_positions) for arm_positions in positions.values()]
    firsts = [list(first_arm.values()).count(arm) for arm in positions]
    neighbours = sum(before.patient == after.patient for before, after in itertools.pairwise(order))
    return (max(means) - min(means) + neighbours) / len(order) + (max(firsts) - min(firsts)) / len(first_arm)


def _units(sessions: Sequence[SimulatedSession], sampling: bool, rng: random.Random) -> tuple[list[Unit], bool]:
    """Return all sessions in units, and whether units are pairs. For ``sampling``: complete units only, one of each
    patient in turn; without any complete unit, random ones of one session from every arm."""
    arms = sorted({session.arm for session in sessions})
    groups: dict[tuple[str, int], Unit] = defaultdict(list)
    for session in sessions:
        groups[session.patient, session.slot].append(session)
    complete = [unit for unit in groups.values() if len(unit) == len({session.arm for session in unit}) == len(arms)]
    paired = bool(complete)
    if not sampling:
        return list(groups.values()), paired
    if not complete:
        by_arm = [[session for session in sessions if session.arm == arm] for arm in arms]
        shuffled = [rng.sample(arm_sessions, len(arm_sessions)) for arm_sessions in by_arm]
        return [list(unit) for unit in zip(*shuffled, strict=False)], False
    by_patient: dict[str, list[Unit]] = defaultdict(list)
    for unit in complete:
        by_patient[unit[0].patient].append(unit)
    for units in by_patient.values():
        rng.shuffle(units)
    patients = list(by_patient.values())
    rng.shuffle(patients)
    rounds = max(map(len, patients))
    return [units[round_] for round_ in range(rounds) for units in patients if round_ < len(units)], paired


def _draw(units: list[Unit], wanted: int) -> list[Unit]:
    size = len(units[0])
    if wanted < size:
        what = f"{wanted} cannot hold one session of each of {size} arms"
        raise UserError(what, where="--sessions", hint=f"At least {size}.")
    if wanted > size * len(units):
        what = f"{wanted} sessions, but only {size * len(units)} with the same number from every arm"
        raise UserError(what, where="--sessions", hint=f"At most {size * len(units)}, or leave it out to take all.")
    return units[: wanted // size]
