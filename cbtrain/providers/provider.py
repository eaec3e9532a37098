"""The one way to an API: answers on disk, budget, account, attempts and retries around one protocol."""

from __future__ import annotations

import json
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

BYTES_A_TOKEN = 3
"""Fewer than most text has: an estimate that is rather too high."""

TELLING, DENSEST = 500, 4.0
"""Tokens from which on a prompt tells how dense an API's tokens are, and the densest that is believed."""

MALFORMED_TRIES = 3
"""How often a whole reply that is no answer of the protocol is worth paying for."""

LONG_WAIT_S = 60.0
"""A wait that a person should hear of."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Deadlines in seconds. An attempt's begins when the request goes out, the overall one with the first attempt:
    waiting for a turn, which may take hours in a large run, counts for neither, also where it is a repeat's turn."""

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
        self._dense = 1.0
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
        prompt, longest = round(tokens_of(made) * self._dense), max(request.max_tokens, _longest(made))
        tokens = prompt + longest
        spent = 0.0  # seconds, of the overall deadline's
        number = malformed = 0
        while True:
            number += 1
            entry, out = await self._reserve(prompt, longest), False
            started = None
            try:
                async with account.turn(tokens):
                    started = account.clock.now()
                    if number == 1:
                        account.retries.began()
                    left = min(patience.attempt_s, patience.overall_s - spent)
                    await self.book.begin(entry, key)
                    out, self.under_way[entry] = True, started
                    answer = await attempt(self.carrier, self.endpoint, made, left)
                    # Booked before anything else is waited for: from here on it is not lost.
                    latency = account.clock.now() - started
                    self._book(entry, answer, prompt, tokens, latency)
                    if number == 1 and answer.finish_reason != "error":
                        account.limit.succeeded()
                if answer.finish_reason == "error":
                    raise ProviderError("transient", "the API broke its answer off", status=200, sent=True)
                await self._keep(key, made, answer)
                return ChatResponse(answer.text, answer.finish_reason, answer.usage, answer.model, latency, number)
            except ProviderError as error:
                error.attempts = number
                self._failed(entry, error)
                wait = max(backoff_s(number, patience.backoff_s), error.retry_after_s or 0.0)
                spent += wait + (account.clock.now() - started if started else 0.0)
                malformed += error.status == 200
                last = number > patience.retries or spent >= patience.overall_s or malformed == MALFORMED_TRIES
                if error.kind == "rate_limit":
                    self._refused(error, wait)
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

    def _book(self, entry: Entry, answer: WireAnswer, prompt: int, tokens: int, latency_s: float) -> None:
        if answer.usage.prompt_tokens > prompt > TELLING:  # this API counts more tokens than was thought
            self._dense = min(self._dense * answer.usage.prompt_tokens / prompt, DENSEST)
        known = list(self.book.budget.roles[self.role].models)
        self.book.answered(entry, answer.usage, answer.model, latency_s)
        used = answer.usage.prompt_tokens + answer.usage.completion_tokens
        self.account.settle(tokens, used or tokens)
        if known and answer.model not in known:
            self.book.note("model_changed", role=self.role, before=known, now=answer.model)
            before = ", ".join(known)
            self.warn(f"the {self.role}'s API answers as {answer.model} now, before as {before}: answers may differ")

    def _refused(self, error: ProviderError, wait: float) -> None:
        """Leave the API alone as long as it asks, but not for so long that nobody would wait for it."""
        account = self.account
        if wait > self.patience.overall_s:
            error.message += f" (it asks to wait {wait:,.0f} s)"
            account.refused(0.0)
            return
        if wait > LONG_WAIT_S and account.gate.left < wait - LONG_WAIT_S:
            self.warn(f"the {self.role}'s API asks to wait {wait:.0f} s: {error.message}")
        account.refused(wait)

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


def tokens_of(made: WireRequest) -> int:
    """Tokens of what is sent, schema and all, estimated from its bytes."""
    return len(json.dumps(made.body, ensure_ascii=False).encode(errors="surrogatepass")) // BYTES_A_TOKEN


def _longest(made: WireRequest) -> int:
    """The longest answer that the body allows, which ``extra_body`` may have set; 0 where it says nothing."""
    config = made.body.get("generationConfig", {})
    found = [made.body.get("max_tokens"), made.body.get("max_completion_tokens"), config.get("maxOutputTokens")]
    return max((limit for limit in found if isinstance(limit, int)), default=0)
