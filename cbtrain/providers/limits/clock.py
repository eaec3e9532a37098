"""The time that limits go by; tests put another one in its place."""

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
    """Time in which nobody has to wait, for replies that are on record: sleeping moves it on at once."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def now(self) -> float:
        return super().now() + self.skipped

    async def sleep(self, seconds: float) -> None:
        self.skipped += seconds
        await super().sleep(0)
