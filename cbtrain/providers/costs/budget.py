"""The budget of a run: money is reserved before a request is sent, and spent when it is answered."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from cbtrain.errors import UserError
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.types import Usage


class BudgetSpent(Exception):
    """The next request could exceed the budget."""


@dataclass(slots=True)
class RoleCost:
    """Costs of one role (patient, judge, …). Of its ``requests``, ``unknown`` may or may not have been answered, and
    ``unpriced`` were answered by a model whose price is not known. ``reused`` answers came from disk. ``models`` counts
    answers by the model's name that the API returned."""

    dollars: float = 0.0
    requests: int = 0
    unknown: int = 0
    unpriced: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    models: Counter[str] = field(default_factory=Counter)

    def add(self, usage: Usage, dollars: float, *, priced: bool = True) -> None:
        """Count an answer."""
        self.requests += 1
        self.unpriced += not priced
        self.dollars += dollars
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens


@dataclass(slots=True)
class Reservation:
    """Dollars reserved for one request."""

    role: str
    dollars: float
    open: bool = True


@dataclass(slots=True)
class Budget:
    """All money of a run, in US dollars; ``cap`` None: no limit. Spent and reserved money never exceed the cap,
    if no request costs more than was reserved for it."""

    cap: float | None = None
    roles: dict[str, RoleCost] = field(default_factory=lambda: defaultdict(RoleCost))
    reserved: float = 0.0
    _open: int = 0
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def spent(self) -> float:
        return sum(role.dollars for role in self.roles.values())

    async def reserve(self, role: str, price: Price | None, prompt_tokens: int, max_tokens: int) -> Reservation:
        """Reserve the highest cost of a request: its prompt uncached, its answer as long as allowed.

        Wait for requests in flight if the money is enough only when they cost less than was reserved for them. Raises
        BudgetSpent if it cannot be enough, UserError if there is a cap and no price.
        """
        if price is None:
            if self.cap is not None:
                hint = "Add it to the table of prices, or set no budget."
                raise UserError("a budget is set, but the price of this model is not known", where=role, hint=hint)
            dollars = 0.0
        else:
            # A prompt that is written to the API's cache may cost more than one that is not.
            dear = prompt_tokens if (price.written or 0) > price.input else 0
            dollars = price.cost(Usage(prompt_tokens, max_tokens, cache_write_tokens=dear))
        while self.cap is not None and self.spent + self.reserved + dollars > self.cap:
            if self._open == 0 or self.spent + dollars > self.cap:
                left = max(self.cap - self.spent, 0.0)
                raise BudgetSpent(f"the next {role} request may cost ${dollars:.4f}, but only ${left:.4f} is left")
            self._freed.clear()
            await self._freed.wait()
        self.reserved += dollars
        self._open += 1
        return Reservation(role, dollars)

    def settle(self, reservation: Reservation, price: Price | None, usage: Usage) -> float:
        """Book an answer's cost, or all reserved money if the API does not count tokens. Return the dollars."""
        self.release(reservation)
        counted = usage.prompt_tokens + usage.completion_tokens > 0
        dollars = reservation.dollars if not counted else price.cost(usage) if price else 0.0
        self.roles[reservation.role].add(usage, dollars, priced=price is not None)
        return dollars

    def lose(self, reservation: Reservation) -> float:
        """Book all reserved money for a request that may or may not have been answered. Return the dollars."""
        self.release(reservation)
        self.book_lost(reservation.role, reservation.dollars)
        return reservation.dollars

    def book_lost(self, role: str, dollars: float) -> None:
        """Count a request of an earlier process whose outcome is not known."""
        cost = self.roles[role]
        cost.requests += 1
        cost.unknown += 1
        cost.dollars += dollars

    def release(self, reservation: Reservation) -> None:
        """Release reserved money; a second call does nothing."""
        if reservation.open:
            reservation.open = False
            self._open -= 1
            self.reserved = self.reserved - reservation.dollars if self._open else 0.0
            self._freed.set()
