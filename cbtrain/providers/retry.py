"""How long to wait before another attempt."""

from __future__ import annotations

import random

LONGEST_BACKOFF_S = 60.0


def backoff_s(attempt: int, first_s: float) -> float:
    """Full jitter: uniform between 0 and ``first_s`` doubled with each attempt (1-based), at most a minute."""
    return random.uniform(0, min(LONGEST_BACKOFF_S, first_s * 2 ** (attempt - 1)))
