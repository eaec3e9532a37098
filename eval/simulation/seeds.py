"""Seeds of turns and summaries: each follows from what it is for, so that no process has to remember any."""

from __future__ import annotations

import hashlib


def seed_from(key: str) -> int:
    """Return a seed of 48 bits that follows from ``key``."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest(), "big")
