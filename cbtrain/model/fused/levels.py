"""How much of a layer is computed again in the backward pass, by name, from the fastest to the smallest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

LEVELS = ("none", "mlp", "selective", "full")
"""What is kept of a layer, besides its input: everything that its backward pass needs; all but the outputs of gate and
up; the output of attention; nothing."""

KEEPS_MIDDLE = ("none", "mlp")
"""Levels that keep query, key, value, and the sum after attention."""


def levels_of(level: str | Sequence[str], layers: int) -> list[str]:
    """Return the level of each of ``layers`` layers: ``level`` is one for all, or one for each."""
    return [level] * layers if isinstance(level, str) else list(level)


def mixtures(layers: int) -> list[tuple[str, ...]]:
    """Return mixtures of levels for ``layers`` layers, from the fastest to the smallest. Each gives up more in one
    layer than the one before; the first layers come first, whose results wait longest for the backward pass."""
    found = [(LEVELS[0],) * layers]
    for lower, higher in pairwise(LEVELS):
        found += [(higher,) * count + (lower,) * (layers - count) for count in range(1, layers + 1)]
    return found
