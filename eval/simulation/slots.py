"""The place of a session among those of one patient with one arm, as one number: analyses pair sessions by it."""

from __future__ import annotations

import zlib

MOST_SEEDS = 2**20
"""Seeds in a study whose patients have several sessions or simulators."""


def slot_of(seed: int, number: int = 0, simulator: str = "") -> int:
    """Return the slot of a session: its ``seed``, if neither its ``number`` in a course (from 1) nor its ``simulator``
    is given; else a number that no other session of that patient with that arm has. It fits into an int64."""
    if not number and not simulator:
        return seed
    return (zlib.crc32(simulator.encode()) if simulator else 0) << 31 | number << 20 | seed
