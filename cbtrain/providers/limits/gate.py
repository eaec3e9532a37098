"""A door that all requests of an account go through: closed for all when the API asks to be left alone."""

from __future__ import annotations

from cbtrain.providers.limits.clock import Clock


class Gate:
    """One refusal with ``Retry-After`` holds back every request of the account, not the refused one alone."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.opens_at = 0.0

    @property
    def left(self) -> float:
        """Seconds until it is open, 0 where it is."""
        return max(0.0, self.opens_at - self.clock.now())

    def hold(self, seconds: float) -> None:
        """Keep it closed for so long at least."""
        self.opens_at = max(self.opens_at, self.clock.now() + seconds)

    async def passing(self) -> None:
        """Wait until it is open, however often it is closed again meanwhile."""
        while self.left > 0:
            await self.clock.sleep(self.left)
