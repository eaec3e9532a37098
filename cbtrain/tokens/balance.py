"""Estimate the cost of packs, group them into optimizer steps, and distribute them over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

EQUAL_COST = 53_000
"""Length of a document whose attention costs as much as everything else, for 7-8B models: weights of the blocks ÷
(layers · heads · head size). Forward FLOPs: 2 · weights · length, and 2 · layers · heads · head size · length²."""


def cost(lengths: NDArray[Any], equal: float = EQUAL_COST) -> NDArray[np.float64]:
    """Return relative costs of documents, float64: linear in tokens, plus quadratic in the length for attention."""
    lengths = np.asarray(lengths, dtype=np.float64)
    return lengths + lengths**2 / equal


def into_steps(costs: NDArray[np.float64], packs_per_step: int, random: np.random.Generator) -> list[list[int]]:
    """Return the packs of each optimizer step, as indices; steps differ by one pack at most, no pack is left over.

    A step gets packs of similar cost, so that ranks with one pack each do not wait for the longest; the order of the
    steps is drawn from ``random``. The result does not depend on the number of ranks.
    """
    if not len(costs):
        return []
    steps = -(-len(costs) // packs_per_step)
    order = np.argsort(-costs, kind="stable")
    groups = np.array_split(order, steps)
    return [groups[index].tolist() for index in random.permutation(steps)]


def share_out(costs: Sequence[float], world: int, done: int = 0) -> list[list[int | None]]:
    """Return the packs of one step by round and rank: ``[round][rank]`` is an index in ``costs``, None if none is left.

    Each round takes the longest packs left; every other round assigns them in reverse, so that no rank always has the
    longest. The first ``done`` packs in that order are skipped: they are computed already, by any number of ranks. A
    round depends only on the index at which it begins, so training can be resumed at any of them.
    """
    order = sorted(range(len(costs)), key=lambda index: -costs[index])
    rounds = []
    for begin in range(done, len(order), world):
        by_rank: list[int | None] = [*order[begin : begin + world]]
        by_rank += [None] * (world - len(by_rank))
        rounds.append(by_rank if begin // world % 2 == 0 else by_rank[::-1])
    return rounds


def imbalance(steps: Sequence[Sequence[float]], world: int) -> float:
    """Return the share of the ranks' time spent waiting for the slowest; ``steps`` are the costs of their packs."""
    worked = waited = 0.0
    for costs in steps:
        loads = [0.0] * world
        for row in share_out(costs, world):
            for rank, index in enumerate(row):
                loads[rank] += 0.0 if index is None else costs[index]
        worked += sum(loads)
        waited += max(loads) * world - sum(loads)
    return waited / (worked + waited) if worked else 0.0
