"""What a pack costs, which packs make an optimizer step, and which rank computes which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

EQUAL_COST = 53_000
"""Length at which a document's attention costs as much as all else, for 7-8B models: weights of the blocks ÷ (layers ·
heads · head size), from the forward FLOPs 2 · weights · length and 2 · layers · heads · head size · length²."""


def cost(lengths: NDArray[Any], equal: float = EQUAL_COST) -> NDArray[np.float64]:
    """Relative cost of documents: linear in tokens, and quadratic in the length for attention."""
    lengths = np.asarray(lengths, dtype=np.float64)
    return lengths + lengths**2 / equal


def into_steps(costs: NDArray[np.float64], packs_per_step: int, random: np.random.Generator) -> list[list[int]]:
    """The packs of each optimizer step, as indices; steps differ by one pack at most, and no pack is left over.

    A step holds packs of like cost, so that ranks with one pack each do not wait for the longest; the order of the
    steps is drawn from ``random``. Nothing here depends on the number of ranks.
    """
    if not len(costs):
        return []
    steps = -(-len(costs) // packs_per_step)
    order = np.argsort(-costs, kind="stable")
    groups = np.array_split(order, steps)
    return [groups[place].tolist() for place in random.permutation(steps)]


def share_out(costs: Sequence[float], world: int, done: int = 0) -> list[list[int | None]]:
    """The packs of one step by round and rank: ``[round][rank]`` is a place in ``costs``, None where none is left.

    Each round takes the longest packs left; every other round deals them out the other way round, so that nobody always
    has the longest. The first ``done`` packs in that order are left out: they are computed already, by however many
    ranks. A round depends on where it begins and on nothing before it, so any of them can be resumed.
    """
    order = sorted(range(len(costs)), key=lambda place: -costs[place])
    rounds = []
    for begin in range(done, len(order), world):
        own: list[int | None] = [*order[begin : begin + world]]
        own += [None] * (world - len(own))
        rounds.append(own if begin // world % 2 == 0 else own[::-1])
    return rounds


def imbalance(steps: Sequence[Sequence[float]], world: int) -> float:
    """Share of the ranks' time spent waiting for the slowest, over the costs of the packs of all steps."""
    worked = waited = 0.0
    for costs in steps:
        loads = [0.0] * world
        for row in share_out(costs, world):
            for rank, place in enumerate(row):
                loads[rank] += 0.0 if place is None else costs[place]
        worked += sum(loads)
        waited += max(loads) * world - sum(loads)
    return waited / (worked + waited) if worked else 0.0
