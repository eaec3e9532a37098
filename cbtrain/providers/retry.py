"""How long to wait before another attempt."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

LONGEST_BACKOFF_S = 60.0


def backoff_s(attempt: int, first_s: float) -> float:
    """Full jitter: uniform between 0 and ``first_s`` doubled with each attempt (1-based), at most a minute."""
    return random.uniform(0, min(LONGEST_BACKOFF_S, first_s * 2 ** (attempt - 1)))


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or an HTTP date; None where it says neither."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
