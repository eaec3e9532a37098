"""The second packing search: empty some packs and fill them anew, as full as their documents allow.

Ruin and recreate (Schrimpf et al. 2000): each round takes the emptiest packs together with as many others and packs
their documents again. A new pack begins with any document and takes the set of others that fills it best, found exactly
as a subset sum; sums are bits of one integer, so adding a document to all sets at once is a shift. A group's new packs
stay where they are fewer, or as many and more unequal, which makes an almost empty pack emptier until it is gone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EMPTIEST, OTHERS = 6, 6
"""Packs of one group: chosen by experiment, see docs/log.md."""

ROUNDS = 400
"""Most rounds; in each, one pack of a hundred is the core of a group."""

PATIENCE = 120
"""Rounds without a pack less before the search ends."""

GROUPS = 12_000
"""Most groups of all rounds together: some seconds. A limit in time would give every rank another plan."""


def refill(
    planned: Sequence[Sequence[int]],
    lengths: NDArray[np.int64],
    capacity: int,
    enough: int,
    random: np.random.Generator,
) -> list[list[int]]:
    """Packs of the documents in ``planned``, at most as many; ends where no more than ``enough`` are left."""
    sizes = lengths.tolist()
    packs = [list(pack) for pack in planned]
    fills = [sum(sizes[index] for index in pack) for pack in packs]
    waited = done = 0
    for _ in range(ROUNDS):
        if len(packs) <= enough or waited == PATIENCE or done > GROUPS:
            break
        groups = max(1, len(packs) // 100)
        done += groups
        # Ties in a random order, or the same packs would meet again and again.
        order = np.lexsort((random.random(len(packs)), fills))
        worst, rest = order[: EMPTIEST * groups], random.permutation(order[EMPTIEST * groups :])[: OTHERS * groups]
        replaced: set[int] = set()
        new: list[list[int]] = []
        for group in range(groups):
            chosen = [*worst[group::groups].tolist(), *rest[group::groups].tolist()]
            made = _fill([index for pack in chosen for index in packs[pack]], sizes, capacity, random)
            before = [fills[pack] for pack in chosen]
            after = [sum(sizes[index] for index in pack) for pack in made]
            if len(made) < len(chosen) or (len(made) == len(chosen) and _squares(after) >= _squares(before)):
                replaced.update(chosen)
                new += made
        count = len(packs)
        packs = [pack for place, pack in enumerate(packs) if place not in replaced] + new
        fills = [sum(sizes[index] for index in pack) for pack in packs] if replaced else fills
        waited = 0 if len(packs) < count else waited + 1
    return packs


def _fill(documents: list[int], sizes: list[int], capacity: int, random: np.random.Generator) -> list[list[int]]:
    left = random.permutation(documents).tolist()
    packs = []
    while left:
        first, *others = left
        chosen = set(_best_subset([sizes[index] for index in others], capacity - sizes[first]))
        packs.append([first, *(index for place, index in enumerate(others) if place in chosen)])
        left = [index for place, index in enumerate(others) if place not in chosen]
    return packs


def _best_subset(sizes: list[int], room: int) -> list[int]:
    """Places of the ``sizes`` that add up closest to ``room`` without exceeding it."""
    if room <= 0:
        return []
    mask = (1 << (room + 1)) - 1
    reached = [1]  # which sums the last i sizes can make
    for size in reversed(sizes):
        sums = reached[-1]
        reached.append(sums | ((sums << size) & mask) if size <= room else sums)
    left = reached[-1].bit_length() - 1
    chosen = []
    for place, size in enumerate(sizes):
        # Can the sizes after this one make up what it leaves?
        if size <= left and (reached[len(sizes) - place - 1] >> (left - size)) & 1:
            chosen.append(place)
            left -= size
    return chosen


def _squares(fills: Sequence[int]) -> int:
    return sum(fill * fill for fill in fills)
