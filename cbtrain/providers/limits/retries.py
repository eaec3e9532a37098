"""How many attempts may be repeats: retries must not keep a struggling API down."""

from __future__ import annotations

from collections import deque

from cbtrain.providers.limits.clock import Clock

LOOK_S = 1.0
"""Seconds after which it is looked again whether there is room: more requests make more of it."""


class RetryBudget:
    """Retries of the last ``window_s`` seconds, held to the share ``ratio`` of the requests begun in them.

    ``least`` retries are always allowed, so that a run of few requests can repeat any at all.
    """

    def __init__(self, ratio: float = 0.1, least: int = 10, window_s: float = 60.0, clock: Clock | None = None) -> None:
        self.ratio, self.least, self.window_s, self.clock = ratio, least, window_s, clock or Clock()
        self._requests: deque[float] = deque()
        self._retries: deque[float] = deque()
        self._queue: deque[object] = deque()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def began(self) -> None:
        """A request goes out for the first time."""
        self._requests.append(self.clock.now())

    def spend(self) -> bool:
        """Take a retry, if there is one."""
        for times in (self._requests, self._retries):
            while times and times[0] <= self.clock.now() - self.window_s:
                times.popleft()
        within = len(self._retries) < max(self.least, self.ratio * len(self._requests))
        if within:
            self._retries.append(self.clock.now())
        return within

    async def take(self, patience_s: float) -> bool:
        """Wait for a retry, first come first served, and take it; False where that takes more than ``patience_s``."""
        until, ticket = self.clock.now() + patience_s, object()
        self._queue.append(ticket)
        try:
            while self._queue[0] is not ticket or not self.spend():
                left = until - self.clock.now()
                if left <= 0:
                    return False
                await self.clock.sleep(min(LOOK_S, left))
        finally:
            self._queue.remove(ticket)
        return True
