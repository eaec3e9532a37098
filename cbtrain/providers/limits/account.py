"""All limits of one account at one API: every provider object that uses it goes through the same ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cbtrain.providers.limits.adaptive import AdaptiveLimit
from cbtrain.providers.limits.clock import Clock
from cbtrain.providers.limits.retries import RetryBudget
from cbtrain.providers.limits.tokens import TokenBucket

REST_S = 10.0
"""Seconds that an API is left alone once repeats are more than their share."""


class Account:
    """``async with account.turn(tokens):`` is entered when a request may go out; its deadline's clock starts there.

    The order is gate, tokens, permit: a permit is held only while a request is under way, never while one waits.
    """

    def __init__(
        self,
        *,
        start: int = 20,
        least: int = 1,
        most: int = 100,
        tokens_per_minute: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.limit = AdaptiveLimit(start, least, most, self.clock)
        self.gate = Gate(self.clock)
        self.tokens = TokenBucket(tokens_per_minute, self.clock) if tokens_per_minute else None
        self.retries = RetryBudget(clock=self.clock)

    def cap(self, tokens_per_minute: int | None) -> None:
        """Never more tokens a minute than so, where more were allowed before; None leaves it at that."""
        if tokens_per_minute and (self.tokens is None or self.tokens.per_minute > tokens_per_minute):
            self.tokens = TokenBucket(tokens_per_minute, self.clock)

    @asynccontextmanager
    async def turn(self, tokens: int) -> AsyncIterator[None]:
        """``tokens`` is what the request is thought to use; correct it by :meth:`settle`."""
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
        """Correct what :meth:`turn` has taken from the tokens a minute."""
        if self.tokens:
            self.tokens.settle(tokens, used)

    def rate_limited(self, wait_s: float) -> None:
        """A request met 429: all others wait too, and fewer go out at once."""
        self.limit.rate_limited()
        self.gate.hold(wait_s)

    async def repeat(self, patience_s: float) -> bool:
        """Wait until one more repeat is within its share, and take it; False where ``patience_s`` are over first. The
        API is left alone for a while where repeats have to wait: most of what goes out fails."""
        if not self.retries.waiting and self.retries.spend():
            return True
        if self.gate.left == 0:
            self.gate.hold(REST_S)
        return await self.retries.take(patience_s)


class Gate:
    """A door that all requests of an account go through: one refusal with ``Retry-After`` holds back every request of
    the account, not the refused one alone."""

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
