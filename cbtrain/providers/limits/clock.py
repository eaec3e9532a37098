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
