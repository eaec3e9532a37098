"""The place of a session among those of one patient with one arm, as one number: analyses pair sessions by it."""

from __future__ import annotations

import zlib

MOST_SEEDS = 2**20
"""Seeds in a study whose patients have several sessions or simulators."""

MOST_SESSIONS = 2**11
"""Sessions in the course of such a patient."""


def slot_of(seed: int, number: int = 0, simulator: str = "") -> int:
    """Return the slot of a session: its ``seed``, if neither its ``number`` in a course (from 1) nor its ``simulator``
    is given; else a number that no other session of that patient with that arm has. It fits into an int64."""
    if not number and not simulator:
        return seed
    return (zlib.crc32(simulator.encode()) if simulator else 0) << 31 | number << 20 | seed


def seed_in(slot: int, number: int = 0, simulator: str = "") -> int:
    """Return the seed from which :func:`slot_of` has made ``slot``."""
    return slot if not number and not simulator else slot % MOST_SEEDS


def words_of(seed: int, number: int = 0, simulator: str = "") -> str:
    """Return the place of a session in words, for messages: ``seed 0, session 4, simulator gpt``."""
    parts = [f"seed {seed}", f"session {number}" if number else "", f"simulator {simulator}" if simulator else ""]
    return ", ".join(filter(None, parts))


def why_no_slot(seed: int, number: int = 0, simulator: str = "") -> str:
    """Return why such a session can have no slot of its own; empty if it can."""
    if number >= MOST_SESSIONS:
        return f"session {number} is too large (at most {MOST_SESSIONS - 1:,})"
    if (number or simulator) and seed >= MOST_SEEDS:
        return f"seed {seed} is too large beside a session or simulator (at most {MOST_SEEDS - 1:,})"
    return ""
