"""The second packing search: empty some packs and fill them again, as full as their documents allow.

Ruin and recreate (Schrimpf et al. 2000): each round takes the emptiest packs and as many others, and packs their
documents again. A new pack begins with any document and takes the set of others that fills it best, found exactly as a
subset sum; sums are bits of one integer, so adding a document to all sets at once is a shift. A group's new packs
replace the old if they are fewer, or as many and more unequal: an almost empty pack becomes emptier until it is gone.
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
"""The search ends after this many rounds without one pack less."""

GROUPS = 12_000
"""Most groups of all rounds together: some seconds. With a time limit, each rank could find another plan."""


def refill(
    planned: Sequence[Sequence[int]],
    lengths: NDArray[np.int64],
    capacity: int,
    enough: int,
    random: np.random.Generator,
) -> list[list[int]]:
    """Return packs of the documents in ``planned``, at most as many; the search ends with ``enough`` packs."""
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
            refilled = _fill([index for pack in chosen for index in packs[pack]], sizes, capacity, random)
            before = [fills[pack] for pack in chosen]
            after = [sum(sizes[index] for index in pack) for pack in refilled]
            if len(refilled) < len(chosen) or (len(refilled) == len(chosen) and _squares(after) >= _squares(before)):
                replaced.update(chosen)
                new += refilled
        count = len(packs)
        packs = [pack for index, pack in enumerate(packs) if index not in replaced] + new
        fills = [sum(sizes[index] for index in pack) for pack in packs] if replaced else fills
        waited = 0 if len(packs) < count else waited + 1
    return packs


def _fill(documents: list[int], sizes: list[int], capacity: int, random: np.random.Generator) -> list[list[int]]:
    left = random.permutation(documents).tolist()
    packs = []
    while left:
        first, *others = left
        chosen = set(_best_subset([sizes[document] for document in others], capacity - sizes[first]))
        packs.append([first, *(document for index, document in enumerate(others) if index in chosen)])
        left = [document for index, document in enumerate(others) if index not in chosen]
    return packs


def _best_subset(sizes: list[int], room: int) -> list[int]:
    """Return the indices of those ``sizes`` whose sum is closest to ``room`` without exceeding it."""
    if room <= 0:
        return []
    mask = (1 << (room + 1)) - 1
    reached = [1]  # which sums the last i sizes can make
    for size in reversed(sizes):
        sums = reached[-1]
        reached.append(sums | ((sums << size) & mask) if size <= room else sums)
    left = reached[-1].bit_length() - 1
    chosen = []
    for index, size in enumerate(sizes):
        # Take it if sizes after this one can make up the rest.
        if size <= left and (reached[len(sizes) - index - 1] >> (left - size)) & 1:
            chosen.append(index)
            left -= size
    return chosen


def _squares(fills: Sequence[int]) -> int:
    return sum(fill * fill for fill in fills)
