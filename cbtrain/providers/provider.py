"""The one way to an API: answers on disk, budget, account, attempts and retries around one protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cbtrain.errors import UserError
from cbtrain.providers.attempt import Endpoint, attempt
from cbtrain.providers.caching.cache import AnswerCache
from cbtrain.providers.caching.key import request_key
from cbtrain.providers.carrier import Carrier
from cbtrain.providers.costs.book import Book, Entry
from cbtrain.providers.costs.budget import Budget, BudgetSpent
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

    ``account`` and ``book`` are shared by all providers that use the same ones, ``cache`` by all runs (``reuse`` says
    whether kept answers are taken, too). ``warn`` is told once of what a person should know.
    """

    def __init__(
        self,
        carrier: Carrier,
        endpoint: Endpoint,
        account: Account,
        *,
        role: str,
        book: Book | None = None,
        price: Price | None = None,
        patience: Patience | None = None,
        cache: AnswerCache | None = None,
        reuse: bool = True,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.carrier, self.endpoint, self.account, self.role = carrier, endpoint, account, role
        self.book, self.price, self.patience = book or Book(Budget()), price, patience or Patience()
        self.cache, self.reuse, self.warn = cache, reuse, warn
        self.under_way: dict[Entry, float] = {}
        """Requests that are out, by the account's clock when they went."""
        self._warned = False

    @property
    def model(self) -> str:
        """The name that is asked for."""
        return self.endpoint.wire.model

    async def chat(self, request: ChatRequest, sample: int = 0) -> ChatResponse:
        """The answer to ``request``, from the cache (with 0 attempts) or the API; ``sample`` numbers the repeats of one
        request. Raises ProviderError where the error's kind, retries, deadline or budget forbid another attempt;
        UserError where there is a budget and no price, or where the request cannot be written down before it goes
        out."""
        made = self.endpoint.wire.request(request)
        key = request_key(made, sample)
        if self.cache is None:
            return await self._ask(request, made, key)
        async with self.cache.alone(key):
            found = await self.cache.get(key) if self.reuse else None
            if found is None:
                return await self._ask(request, made, key)
        self.book.reused(self.role, key)
        return ChatResponse(found.text, found.finish_reason, found.usage, found.model, 0.0, 0)

    async def _ask(self, request: ChatRequest, made: WireRequest, key: str) -> ChatResponse:
        patience, account = self.patience, self.account
        prompt = tokens_of(request)
        tokens = prompt + request.max_tokens
        account.retries.began()
        deadline: float | None = None
        number = 0
        while True:
            number += 1
            entry, out = await self._reserve(prompt, request.max_tokens), False
            try:
                async with account.turn(tokens):
                    started = account.clock.now()
                    deadline = deadline or started + patience.overall_s
                    left = min(patience.attempt_s, deadline - started)
                    if left <= 0:
                        raise ProviderError("transient", f"no turn within {patience.overall_s:.3g} s")
                    await self.book.begin(entry, key)
                    out, self.under_way[entry] = True, started
                    answer = await attempt(self.carrier, self.endpoint, made, left)
                    # Booked before anything else is waited for: from here on it is not lost.
                    latency = account.clock.now() - started
                    self._book(entry, answer, tokens, latency)
                    if number == 1:
                        account.limit.succeeded()
                await self._keep(key, made, answer)
                return ChatResponse(answer.text, answer.finish_reason, answer.usage, answer.model, latency, number)
            except ProviderError as error:
                error.attempts = number
                self._failed(entry, error)
                wait = max(backoff_s(number, patience.backoff_s), error.retry_after_s or 0.0)
                if error.kind == "rate_limit":
                    account.refused(wait)
                last = number > patience.retries or account.clock.now() + wait > (deadline or 0.0)
                if not error.retryable or last:
                    raise
            finally:
                self.under_way.pop(entry, None)
                if out:  # cancelled under way: nobody knows what became of it
                    self.book.unknown(entry, "cancelled")
                self.book.nothing(entry)
            account.repeating()
            await account.clock.sleep(wait)

    async def _reserve(self, prompt: int, longest: int) -> Entry:
        try:
            return await self.book.reserve(self.role, self.price, prompt, longest)
        except BudgetSpent as error:
            raise ProviderError("budget", str(error)) from None

    def _book(self, entry: Entry, answer: WireAnswer, tokens: int, latency_s: float) -> None:
        known = list(self.book.budget.roles[self.role].models)
        self.book.answered(entry, answer.usage, answer.model, latency_s)
        self.account.settle(tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
        if known and answer.model not in known:
            self.book.note("model_changed", role=self.role, before=known, now=answer.model)
            before = ", ".join(known)
            self.warn(f"the {self.role}'s API answers as {answer.model} now, before as {before}: answers may differ")

    def _failed(self, entry: Entry, error: ProviderError) -> None:
        if error.sent:
            self.book.unknown(entry, str(error))
        else:
            self.book.nothing(entry, str(error))
        if error.kind == "transient":
            self.account.limit.troubled()

    async def _keep(self, key: str, made: WireRequest, answer: WireAnswer) -> None:
        """Keep an answer that is there already: that it cannot be kept is no reason to lose it."""
        if self.cache is None:
            return
        try:
            await self.cache.keep(key, made.body, answer)
        except UserError as error:
            if not self._warned:
                self.warn(str(error))
            self._warned = True


def tokens_of(request: ChatRequest) -> int:
    """Tokens of a request's prompt, estimated from its characters."""
    return sum(len(message.content) // CHARACTERS_A_TOKEN + MESSAGE_TOKENS for message in request.messages)
