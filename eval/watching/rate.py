"""How often something has happened of late."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

KEPT_S = 300.0
"""Seconds over which counts are kept."""

LEAST_S = 2.0
"""Seconds after the start before which there is no rate."""


@dataclass(slots=True)
class Rate:
    """Counts by the second, of the last :data:`KEPT_S` seconds. Times are seconds of the Unix clock."""

    start: float | None = None
    _counts: deque[tuple[int, int]] = field(default_factory=deque)

    def restart(self, time: float) -> None:
        """Begin anew at ``time``."""
        self.start = time
        self._counts.clear()

    def add(self, time: float, count: int = 1) -> None:
        """Count ``count`` more at ``time``. Times must not run backwards by more than a second or so."""
        if self.start is None:
            self.start = time
        second = int(time)
        if self._counts and self._counts[-1][0] >= second:
            last, before = self._counts.pop()
            self._counts.append((last, before + count))
            return
        self._counts.append((second, count))
        while self._counts[0][0] < second - KEPT_S:
            self._counts.popleft()

    def per_second(self, now: float, span_s: float) -> float | None:
        """Return the rate over the last ``span_s`` seconds before ``now``, or since the start if that was later; None
        if it has just begun."""
        if self.start is None or now - self.start < LEAST_S:
            return None
        seconds = min(span_s, now - self.start)
        return sum(count for second, count in self._counts if second >= int(now - seconds)) / seconds
