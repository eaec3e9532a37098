"""The live display of the process that evaluates: a table on a terminal, a line now and then in a log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from rich.console import Console, Group
from rich.live import Live

from cbtrain.console import say
from cbtrain.eval.watching.table import (
    FRAMES_PER_SECOND,
    LINE_EVERY_S,
    MOST_ROWS,
    Process,
    Requests,
    View,
    line,
    table,
)
from cbtrain.eval.watching.tally import Tally
from cbtrain.providers.providers import Providers
from cbtrain.providers.summary import waits

MEASURE_EVERY_S = 0.25
"""Seconds between two looks at how late the event loop is."""

LAG_KEPT_S = 10.0
"""Seconds for which the longest lag is shown."""


class LoopLag:
    """By how many seconds the event loop wakes a task late that sleeps meanwhile (:meth:`measure`). Any thread may read
    :attr:`worst`: also while the loop is blocked."""

    def __init__(self) -> None:
        self._due = float("inf")
        self._worst = self._worst_at = 0.0

    @property
    def worst(self) -> float:
        """The longest lag of the last :data:`LAG_KEPT_S` seconds."""
        now = time.perf_counter()
        blocked = max(now - self._due, 0.0)
        return max(blocked, self._worst if now - self._worst_at < LAG_KEPT_S else 0.0)

    async def measure(self) -> None:
        """Sleep once, and note how late it was."""
        self._due = time.perf_counter() + MEASURE_EVERY_S
        await asyncio.sleep(MEASURE_EVERY_S)
        now = time.perf_counter()
        late, self._due = max(now - self._due, 0.0), float("inf")
        if late >= self._worst or now - self._worst_at >= LAG_KEPT_S:
            self._worst, self._worst_at = late, now


class Display:
    """Shows ``tally``, which the journal feeds, on ``console`` while the body of :meth:`shown` runs.

    ``providers`` are the run's APIs. On a terminal a thread draws the table, so that the event loop never waits for it.
    """

    def __init__(self, console: Console, tally: Tally, providers: Providers | None = None) -> None:
        self.console, self.tally, self.providers = console, tally, providers
        self.lag = LoopLag()
        self._depth = 0

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the state until the body ends, and its last state then. Inside another one nothing more is shown."""
        self._depth += 1
        try:
            if self._depth > 1:
                yield
                return
            measuring = asyncio.create_task(self._measure())
            try:
                with self._live() if self._draws else nullcontext():
                    yield
            finally:
                measuring.cancel()
                await asyncio.gather(measuring, return_exceptions=True)
                if not self._draws:
                    say(self.console, line(self._view()))
        finally:
            self._depth -= 1

    @property
    def _draws(self) -> bool:
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def _live(self) -> Live:
        return Live(console=self.console, get_renderable=self._frame, refresh_per_second=FRAMES_PER_SECOND)

    def _frame(self) -> Group:
        rows = min(MOST_ROWS, self.console.height - 1)
        return Group(*table(self._view(), self.console.width, rows))

    def _view(self) -> View:
        requests = requests_of(self.providers) if self.providers else None
        return View(self.tally, time.time(), True, Process(self.lag.worst, requests))

    async def _measure(self) -> None:
        """Measure the loop's lag, and write the lines of a log."""
        line_at = time.perf_counter() + LINE_EVERY_S
        while True:
            await self.lag.measure()
            if not self._draws and time.perf_counter() >= line_at:
                line_at += LINE_EVERY_S
                say(self.console, line(self._view()))


def requests_of(providers: Providers) -> Requests | None:
    """Return the requests to all APIs of a run; None if it has asked for none."""
    if not providers.opened:
        return None
    ages: list[float] = []
    for provider in list(providers.opened):
        # `list` copies in one step: the event loop's thread adds and removes requests meanwhile.
        ages += [provider.account.clock.now() - sent for sent in list(provider.under_way.values())]
    accounts = dict.fromkeys(provider.account for provider in list(providers.opened))
    limit = sum(account.limit.limit for account in accounts)
    return Requests(len(ages), max(ages, default=None), limit, [why for account in accounts for why in waits(account)])
