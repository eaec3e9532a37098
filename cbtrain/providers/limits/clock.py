"""The clock of all limits; tests replace it."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """Monotonic seconds, and waiting for them to pass."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Skipping(Clock):
    """A clock for recorded replies: sleeping advances it at once, without waiting."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def now(self) -> float:
        return super().now() + self.skipped

    async def sleep(self, seconds: float) -> None:
        self.skipped += seconds
        await super().sleep(0)
