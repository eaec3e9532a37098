"""Plan an epoch: which documents share a pack, which packs make an optimizer step, which rank computes which pack.

The plan is over all documents; none is dropped or cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbtrain.tokens.repack import refill

NEAR_EQUAL = 0.01
"""Documents whose lengths differ by no more than this share are shuffled among each other in each epoch."""

GOOD_FILL = 0.98
"""If best-fit decreasing fills a smaller share of the slots, a slower search is tried."""

FULL = 0.99
"""Share of filled slots at which the slower search ends."""

SEARCHED_DOCUMENTS = 100_000
"""Most documents for the slower search, which takes some seconds for this many."""

EQUAL_COST = 53_000
"""Length of a document whose attention costs as much as everything else, for 7-8B models: weights of the blocks ÷
(layers · heads · head size). Forward FLOPs: 2 · weights · length, and 2 · layers · heads · head size · length²."""


@dataclass(frozen=True, slots=True)
class Packing:
    """``packs`` are lists of document indices; ``method`` names the search that found them.

    ``fill`` is the share of the slots that hold a token; a document longer than a pack brings its own slots.
    """

    packs: list[list[int]]
    method: str
    fill: float


def plan_packs(
    lengths: NDArray[Any], capacity: int, random: np.random.Generator | None = None, *, search: bool = True
) -> Packing:
    """Return as few packs of ``capacity`` tokens for documents of ``lengths`` as two searches find.

    Best-fit decreasing is first. If it fills less than :data:`GOOD_FILL` and fewer packs are possible
    (:func:`fewest_packs`), :func:`refill` continues from its packs (not with ``search=False``). Ties and near-equal
    lengths are in an order drawn from ``random``. A document longer than ``capacity`` gets a pack of its own.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    order = _decreasing(lengths, random)
    packs, method = best_fit(lengths, order, capacity), "best fit decreasing"
    tokens = int(np.minimum(lengths, capacity).sum())
    enough = max(fewest_packs(lengths, capacity), int(tokens / (FULL * capacity)))
    poor = tokens < GOOD_FILL * len(packs) * capacity
    if search and poor and enough < len(packs) and len(lengths) <= SEARCHED_DOCUMENTS:
        random = random or np.random.default_rng(0)
        better = refill(packs, np.minimum(lengths, capacity), capacity, enough, random)
        if len(better) < len(packs):
            packs, method = better, "refilled"
    slots = len(packs) * capacity + int(np.maximum(lengths - capacity, 0).sum())
    return Packing(packs, method, int(lengths.sum()) / slots if slots else 1.0)


def best_fit(lengths: NDArray[np.int64], order: NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Put each document, in ``order``, into the pack that it fills best (Johnson et al. 1974).

    The set of free sizes is one integer used as a bit set, so the best fit is a shift and a lowest bit: O(n log n) for
    the order, O(capacity / 64) a document after it.
    """
    packs: list[list[int]] = []
    with_room: dict[int, list[int]] = {}
    sizes = 0
    for index, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = sizes >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            waiting = with_room[room]
            pack = waiting.pop()
            if not waiting:
                sizes ^= 1 << room
            packs[pack].append(index)
        else:
            room, pack = max(capacity, length), len(packs)
            packs.append([index])
        left = room - length
        if left:
            waiting = with_room.setdefault(left, [])
            if not waiting:
                sizes |= 1 << left
            waiting.append(pack)
    return packs


def fewest_packs(lengths: NDArray[np.int64], capacity: int) -> int:
    """Return a lower bound on the number of packs: L2 of Martello and Toth (1990, section 8.3).

    For a threshold k, documents longer than capacity - k share a pack with no document of k or more, and documents
    longer than half a pack do not share one with each other; the rest needs at least its total. O(n log n).
    """
    sizes = np.sort(np.minimum(lengths, capacity))[::-1]
    if not len(sizes):
        return 0
    total = np.concatenate([[0], np.cumsum(sizes)])

    def longer_than(value: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(-sizes, -value, side="left")

    k = np.unique(np.append(sizes[2 * sizes <= capacity], 0))
    alone, big = longer_than(capacity - k), np.full(len(k), longer_than(np.asarray([capacity // 2]))[0])
    big = np.maximum(big, alone)
    counted = longer_than(k - 1)  # documents of k or more
    room = (big - alone) * capacity - (total[big] - total[alone])
    rest = total[counted] - total[big] - room
    return int((big + np.maximum(0, -(-rest // capacity))).max())


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


def _decreasing(lengths: NDArray[np.int64], random: np.random.Generator | None) -> NDArray[np.int64]:
    if random is None:
        return np.argsort(-lengths, kind="stable")
    bands = np.floor(np.log(np.maximum(lengths, 1)) / np.log1p(NEAR_EQUAL))
    return np.lexsort((random.random(len(lengths)), -bands))
