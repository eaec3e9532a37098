"""Which judge rates which session: every judge all, or each session one judge in rotation.

In rotation the arms of one patient, seed, number and simulator have the same judge, so that severities cancel in every
planned contrast; patients, seeds and numbers turn the rotation by one each, so that every judge rates as many sessions
of every arm, and of every patient as far as the numbers allow. An arm's mean is then the panel's mean, at the cost of
one judge. (A cyclic design, as in John and Williams, Cyclic and Computer Generated Designs, 1995; the blocks are the
sessions that are compared.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cbtrain.eval.simulation.runner import SimulatedSession

Name = TypeVar("Name", str, int)


def in_rotation(sessions: Sequence[SimulatedSession], judges: Sequence[str]) -> dict[str, list[SimulatedSession]]:
    """Return the sessions of each of ``judges``. Sessions that are added later (seeds, arms, patients after the others)
    change nothing for those before."""
    patients = _places([session.patient for session in sessions])
    numbers = _places(sorted({session.number for session in sessions}))
    simulators = _places([session.simulator for session in sessions])
    shares: dict[str, list[SimulatedSession]] = {judge: [] for judge in judges}
    for session in sessions:
        turned = patients[session.patient] + session.seed + numbers[session.number] + simulators[session.simulator]
        shares[judges[turned % len(judges)]].append(session)
    return shares


def _places(names: Sequence[Name]) -> dict[Name, int]:
    """Return the place of each different name, in order of appearance."""
    return {name: place for place, name in enumerate(dict.fromkeys(names))}
