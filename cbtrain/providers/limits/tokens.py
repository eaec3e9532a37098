"""Tokens a minute, where an account has such a limit."""

from __future__ import annotations

import asyncio

from cbtrain.providers.limits.clock import Clock


class TokenBucket:
    """Fills at ``per_minute`` and holds as much. A request takes an estimate when it goes out, and gives back, or takes
    too, the difference to what it really used.

    The level may fall below nothing: a request larger than the bucket goes out from a full one, and others wait longer.
    """

    def __init__(self, per_minute: int, clock: Clock | None = None) -> None:
        self.per_minute, self.clock = per_minute, clock or Clock()
        self._turn = asyncio.Lock()
        self._level, self._at = float(per_minute), self.clock.now()

    @property
    def level(self) -> float:
        """Tokens that are there now."""
        now = self.clock.now()
        self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60)
        self._at = now
        return self._level

    async def take(self, estimate: int) -> None:
        """Wait until ``estimate`` tokens are there (or the bucket is full), and take them."""
        async with self._turn:  # first come, first served: small requests must not starve a large one
            while (missing := min(estimate, self.per_minute) - self.level) > 1e-6:
                await self.clock.sleep(missing * 60 / self.per_minute)
            self._level -= estimate

    def settle(self, estimate: int, used: int) -> None:
        """Correct an estimate; 0 used where the request came to nothing."""
        self._level = min(self.per_minute, self.level + estimate - used)
