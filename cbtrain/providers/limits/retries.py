"""How many attempts may be repeats: retries must not keep a struggling API down."""

from __future__ import annotations

from collections import deque

from cbtrain.providers.limits.clock import Clock


class RetryBudget:
    """Retries of the last ``window_s`` seconds, against the share ``ratio`` of the requests begun in them.

    ``least`` retries are always allowed, so that a run of few requests can repeat any at all.
    """

    def __init__(self, ratio: float = 0.1, least: int = 10, window_s: float = 60.0, clock: Clock | None = None) -> None:
        self.ratio, self.least, self.window_s, self.clock = ratio, least, window_s, clock or Clock()
        self._requests: deque[float] = deque()
        self._retries: deque[float] = deque()

    def began(self) -> None:
        """A request goes out for the first time."""
        self._requests.append(self.clock.now())

    def spend(self) -> bool:
        """A retry is about to go out: whether the budget has it. Where not, let the API rest first."""
        for times in (self._requests, self._retries):
            while times and times[0] < self.clock.now() - self.window_s:
                times.popleft()
        within = len(self._retries) < max(self.least, self.ratio * len(self._requests))
        if within:
            self._retries.append(self.clock.now())
        return within
