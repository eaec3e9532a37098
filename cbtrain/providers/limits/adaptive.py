"""How many requests an account has in flight at once: as many as its API turns out to take.

Additive increase, multiplicative decrease (Chiu and Jain 1989) with a slow start, as TCP finds the width of a path.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from cbtrain.providers.limits.clock import Clock

SMALLEST_ROUND = 4
SATURATED = 0.8
"""Share of the limit that must have been in flight for the limit to have held anything back."""

CUT, STEP = 0.8, 0.05
"""What a refusal leaves of the limit, and what a round without one adds after the slow start."""

COOLDOWN_S = 15.0
"""Seconds after a cut in which neither another refusal nor a success says anything new: they answer requests that were
in flight before it."""

Why = Literal["start", "setting", "growth", "rate_limit"]


@dataclass(frozen=True, slots=True)
class LimitChange:
    """The limit from ``at`` (seconds of the clock) on."""

    at: float
    limit: int
    why: Why


class AdaptiveLimit:
    """``async with limit.permit():`` waits, first come first served, until fewer than :attr:`limit` are in flight.

    Tell it how each request ended: :meth:`succeeded` at the first attempt grows it, :meth:`rate_limited` (429) cuts it,
    :meth:`failed` (5xx, time-outs) only starts the round anew. What came from a cache or after a retry says nothing.
    A permit is never lost, wherever its holder is cancelled.
    """

    def __init__(self, start: int = 20, least: int = 1, most: int = 100, clock: Clock | None = None) -> None:
        if not 1 <= least <= start <= most:
            raise ValueError(f"1 <= least {least} <= start {start} <= most {most} does not hold")
        self.least, self.most, self.clock = least, most, clock or Clock()
        self.limit, self.in_use = start, 0
        self.history = [LimitChange(self.clock.now(), start, "start")]
        self.on_change: Callable[[LimitChange], None] = lambda change: None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._slow_start = True
        self._clean = self._peak = 0
        self._cut_at = -math.inf

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        await self._acquire()
        try:
            yield
        finally:
            self.in_use -= 1
            self._wake()

    def cap(self, most: int) -> None:
        """Never more than ``most`` from now on, where more was allowed before."""
        if most < self.most:
            self.most = most
            self.least = min(self.least, most)
            self._change(min(self.limit, most), "setting")

    def succeeded(self) -> None:
        if self._cooling:
            return
        self._clean += 1
        if self._clean < max(self.limit, SMALLEST_ROUND):
            return
        saturated = self._peak >= SATURATED * self.limit
        self._new_round()
        if saturated and self.limit < self.most:
            step = self.limit if self._slow_start else max(1, round(STEP * self.limit))
            self._change(min(self.most, self.limit + step), "growth")

    def rate_limited(self) -> None:
        if self._cooling:
            return
        self._slow_start = False
        self._cut_at = self.clock.now()
        self._new_round()
        self._change(max(self.least, math.floor(CUT * self.limit)), "rate_limit")

    def failed(self) -> None:
        self._new_round()

    @property
    def _cooling(self) -> bool:
        return self.clock.now() - self._cut_at < COOLDOWN_S

    def _new_round(self) -> None:
        self._clean, self._peak = 0, self.in_use

    def _change(self, limit: int, why: Why) -> None:
        if limit != self.limit:
            self.limit = limit
            self.history.append(LimitChange(self.clock.now(), limit, why))
            self.on_change(self.history[-1])
            self._wake()

    async def _acquire(self) -> None:
        if self.in_use < self.limit and not self._waiting:
            self._take()
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._waiting.remove(granted)
            else:  # granted in the same moment
                self.in_use -= 1
            self._wake()
            raise

    def _wake(self) -> None:
        for granted in list(self._waiting):
            if self.in_use >= self.limit:
                break
            if not granted.done():
                self._waiting.remove(granted)
                self._take()
                granted.set_result(None)

    def _take(self) -> None:
        self.in_use += 1
        self._peak = max(self._peak, self.in_use)
