"""A sweep on several ranks: each trains whole runs by itself, so nothing is summed and nobody waits for a step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from cbtrain.errors import Stopped
from cbtrain.study.sweep.prepare import PreparedRun
from cbtrain.training import distributed
from cbtrain.training.planning.machine import Machine
from cbtrain.training.signals import StopSignals

LOOK_EVERY = 0.5
"""Seconds between two looks at what other ranks have written."""


@dataclass(frozen=True, slots=True)
class Place:
    """This process among those that ``torchrun`` started, and its share of the ``machine``: noted before it leaves
    their group to train by itself."""

    rank: int
    world: int
    machine: Machine

    @property
    def leads(self) -> bool:
        return self.rank == 0


def leave_group(machine: Machine) -> Place:
    """Leave the group of ranks after all have come here, and return the place of this one in it: from now on this
    process trains as if it were the only one. On a GPU it takes that of its place on the machine. ``machine`` is what
    is here before any of them loads weights."""
    place = Place(distributed.rank(), distributed.world(), machine.share_of(distributed.launched_here()))
    distributed.leave()
    if place.world > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return place


def dealt(runs: Sequence[PreparedRun], world: int) -> list[list[PreparedRun]]:
    """Return the runs of each rank: the longest first, each to the rank that has least to do so far."""
    shares: list[list[PreparedRun]] = [[] for _ in range(world)]
    loads = [0] * world
    for run in sorted(runs, key=lambda run: -run.planned_tokens):
        rank = loads.index(min(loads))
        shares[rank].append(run)
        loads[rank] += run.planned_tokens
    order = {run.name: place for place, run in enumerate(runs)}
    return [sorted(share, key=lambda run: order[run.name]) for share in shares]


def wait_until(done: Callable[[], bool], timeout_minutes: float) -> None:
    """Wait for what other ranks write to the folder that all share. Raises Stopped if a signal comes meanwhile; a rank
    that fails is ``torchrun``'s to notice, which then ends all."""
    with StopSignals(timeout_minutes) as signals:
        while not done():
            if signals.heard:
                raise Stopped(signals.heard)
            time.sleep(LOOK_EVERY)
