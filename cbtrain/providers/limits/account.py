"""All limits of one account at one API, shared by every provider that uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cbtrain.providers.limits.adaptive import AdaptiveLimit
from cbtrain.providers.limits.clock import Clock
from cbtrain.providers.limits.retries import RetryBudget
from cbtrain.providers.limits.tokens import TokenBucket
from cbtrain.stopping import StopRequest

REST_S = 10.0
"""Seconds without requests to an API once repeats exceed their share."""


class Account:
    """``async with account.turn(tokens):`` is entered when a request may go out; its deadline's clock starts there.

    The order is gate, tokens, permit: a permit is held only while a request is under way, never while one waits. After
    ``stop`` no request may go out.
    """

    def __init__(
        self,
        *,
        start: int = 20,
        least: int = 1,
        most: int = 100,
        tokens_per_minute: int | None = None,
        clock: Clock | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.stop = stop or StopRequest()
        self.limit = AdaptiveLimit(start, least, most, self.clock)
        self.gate = Gate(self.clock)
        self.tokens = TokenBucket(tokens_per_minute, self.clock) if tokens_per_minute else None
        self.retries = RetryBudget(clock=self.clock)

    def cap(self, tokens_per_minute: int | None) -> None:
        """Lower the limit of tokens a minute to ``tokens_per_minute``, if it was higher; None changes nothing."""
        if tokens_per_minute and (self.tokens is None or self.tokens.per_minute > tokens_per_minute):
            self.tokens = TokenBucket(tokens_per_minute, self.clock)

    @asynccontextmanager
    async def turn(self, tokens: int) -> AsyncIterator[None]:
        """Wait until a request may be sent. ``tokens`` is an estimate; :meth:`settle` corrects it."""
        await self.gate.passing()
        if self.tokens:
            await self.tokens.take(tokens)
        try:
            while True:
                async with self.limit.permit():
                    if self.gate.left == 0:
                        yield
                        return
                await self.gate.passing()  # it was closed while the permit was waited for
        except BaseException:
            self.settle(tokens, 0)
            raise

    def settle(self, tokens: int, used: int) -> None:
        """Correct the tokens a minute that :meth:`turn` has taken to those ``used``."""
        if self.tokens:
            self.tokens.settle(tokens, used)

    def rate_limited(self, wait_s: float) -> None:
        """Note a 429: all requests wait ``wait_s`` seconds, and fewer are in flight from then on."""
        self.limit.rate_limited()
        self.gate.hold(wait_s)

    async def repeat(self, patience_s: float) -> bool:
        """Wait until one more repeat is within its share, and take it; return False if ``patience_s`` seconds pass
        first. If repeats have to wait, most requests fail: then all requests pause for a while."""
        if not self.retries.waiting and self.retries.spend():
            return True
        if self.gate.left == 0:
            self.gate.hold(REST_S)
        return await self.retries.take(patience_s)


class Gate:
    """All requests of an account pass the gate: one refusal with ``Retry-After`` delays every request of the account,
    not only the refused one."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.opens_at = 0.0

    @property
    def left(self) -> float:
        """Seconds until it opens, 0 if it is open."""
        return max(0.0, self.opens_at - self.clock.now())

    def hold(self, seconds: float) -> None:
        """Keep it closed for at least ``seconds``."""
        self.opens_at = max(self.opens_at, self.clock.now() + seconds)

    async def passing(self) -> None:
        """Wait until it is open, also if it is closed again meanwhile."""
        while self.left > 0:
            await self.clock.sleep(self.left)
