"""The one way to an API: budget, account, attempts and retries around one protocol."""

from __future__ import annotations

from dataclasses import dataclass

from cbtrain.providers.attempt import Endpoint, attempt
from cbtrain.providers.caching.cache import AnswerCache
from cbtrain.providers.caching.key import request_key
from cbtrain.providers.carrier import Carrier
from cbtrain.providers.costs.budget import Budget, BudgetSpent, Reservation
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.limits.account import Account
from cbtrain.providers.retry import backoff_s
from cbtrain.providers.types import ChatRequest, ChatResponse
from cbtrain.providers.wires.wire import WireAnswer, WireRequest

CHARACTERS_A_TOKEN = 3
"""Fewer than most text has: an estimate that is rather too high."""

MESSAGE_TOKENS = 8
"""What a template adds to a message."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Deadlines in seconds. An attempt's begins when the request goes out, the overall one with the first attempt:
    waiting for a turn, which may take hours in a large run, counts for neither."""

    attempt_s: float = 180.0
    overall_s: float = 900.0
    retries: int = 8
    backoff_s: float = 1.0


class Provider:
    """One model at one API, asked in one ``role`` (patient, judge, …) of a run.

    ``account`` and ``budget`` are shared by all providers that use the same ones, ``cache`` by all runs. In the cache
    requests under way stand as those of ``run``.
    """

    def __init__(
        self,
        carrier: Carrier,
        endpoint: Endpoint,
        account: Account,
        *,
        role: str,
        budget: Budget | None = None,
        price: Price | None = None,
        patience: Patience | None = None,
        cache: AnswerCache | None = None,
        run: str = "",
    ) -> None:
        self.carrier, self.endpoint, self.account, self.role = carrier, endpoint, account, role
        self.budget, self.price, self.patience = budget or Budget(), price, patience or Patience()
        self.cache, self.run = cache, run

    async def chat(self, request: ChatRequest, sample: int = 0) -> ChatResponse:
        """The answer to ``request``, from the cache (with 0 attempts) or the API; ``sample`` numbers the repeats of one
        request. Raises ProviderError where the error's kind, retries, deadline or budget forbid another attempt;
        UserError where there is a budget and no price."""
        made = self.endpoint.wire.request(request)
        if self.cache is None:
            return await self._ask(request, made, "")
        key = request_key(made, sample)
        async with self.cache.alone(key):
            found = await self.cache.get(key)
            if found is not None:
                return ChatResponse(found.text, found.finish_reason, found.usage, found.model, 0.0, 0)
            return await self._ask(request, made, key)

    async def _ask(self, request: ChatRequest, made: WireRequest, key: str) -> ChatResponse:
        patience, account = self.patience, self.account
        prompt = tokens_of(request)
        tokens = prompt + request.max_tokens
        account.retries.began()
        deadline: float | None = None
        number = 0
        while True:
            number += 1
            reservation, out, noted = await self._reserve(prompt, request.max_tokens), False, False
            try:
                async with account.turn(tokens):
                    started = account.clock.now()
                    deadline = deadline or started + patience.overall_s
                    left = min(patience.attempt_s, deadline - started)
                    if left <= 0:
                        raise ProviderError("transient", f"no turn within {patience.overall_s:.3g} s")
                    if self.cache:
                        noted = True
                        await self.cache.begin(key, run=self.run, role=self.role, dollars=reservation.dollars)
                    out = True
                    answer = await attempt(self.carrier, self.endpoint, made, left)
                    if number == 1:
                        account.limit.succeeded()
                if self.cache:
                    await self.cache.finish(key, made.body, answer)
                    noted = False
                return self._done(answer, reservation, tokens, account.clock.now() - started, number)
            except ProviderError as error:
                error.attempts = number
                self._failed(error, reservation)
                wait = max(backoff_s(number, patience.backoff_s), error.retry_after_s or 0.0)
                if error.kind == "rate_limit":
                    account.refused(wait)
                last = number > patience.retries or account.clock.now() + wait > (deadline or 0.0)
                if not error.retryable or last:
                    raise
            finally:
                if reservation.open and out:  # cancelled under way: nobody knows what became of it
                    self.budget.lose(reservation)
                self.budget.release(reservation)
                if self.cache and noted:
                    await self.cache.drop(key)
            account.repeating()
            await account.clock.sleep(wait)

    async def _reserve(self, prompt: int, longest: int) -> Reservation:
        try:
            return await self.budget.reserve(self.role, self.price, prompt, longest)
        except BudgetSpent as error:
            raise ProviderError("budget", str(error)) from None

    def _done(
        self, answer: WireAnswer, reservation: Reservation, tokens: int, latency_s: float, number: int
    ) -> ChatResponse:
        usage = answer.usage
        self.budget.settle(reservation, self.price, usage)
        self.account.settle(tokens, usage.prompt_tokens + usage.completion_tokens)
        return ChatResponse(answer.text, answer.finish_reason, usage, answer.model, latency_s, number)

    def _failed(self, error: ProviderError, reservation: Reservation) -> None:
        if error.sent:
            self.budget.lose(reservation)
        else:
            self.budget.release(reservation)
        if error.kind == "transient":
            self.account.limit.troubled()


def tokens_of(request: ChatRequest) -> int:
    """Tokens of a request's prompt, estimated from its characters."""
    return sum(len(message.content) // CHARACTERS_A_TOKEN + MESSAGE_TOKENS for message in request.messages)
