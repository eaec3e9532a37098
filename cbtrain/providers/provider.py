"""One model at one API. The order of a paid request:

1. ``chat`` writes the request in the API's format and looks for its answer on disk. One process asks for one answer.
2. ``_ask`` makes attempts until there is an answer, or ``_may_retry`` forbids another one (kind of error, retries,
   deadline, share of repeats) or has waited for it.
3. ``_attempt_paid`` sets money aside in the budget (``_reserve``), then waits for the account's turn: the gate that a
   429 closes, the tokens a minute, the requests in flight.
4. ``_send`` writes ``request_started`` to the ledger, sends the request over the transport, and reads the answer.
5. ``_book`` writes what it cost, before anything else is waited for. Unused money is released.
6. ``_keep`` writes the answer to disk, for this run and others.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass

from cbtrain.errors import UserError
from cbtrain.providers.attempt import Endpoint, attempt, backoff_s
from cbtrain.providers.caching.cache import AnswerCache, request_key
from cbtrain.providers.costs.budget import Budget, BudgetSpent
from cbtrain.providers.costs.ledger import Entry, Ledger
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.api_format import WireAnswer, WireRequest
from cbtrain.providers.limits.account import Account
from cbtrain.providers.transport import Transport
from cbtrain.providers.types import ChatRequest, ChatResponse

BYTES_A_TOKEN = 3
"""Fewer than most text has: an estimate that is rather too high."""

TELLING = 500
"""Prompts at least this long are used to estimate the API's tokens per byte; shorter ones what it adds to each."""

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


@dataclass(slots=True)
class _Attempts:
    """One request on its way: what it takes, and what has become of it so far. ``spent_s`` is of the overall deadline's
    seconds, ``failure`` that of the last attempt."""

    made: WireRequest
    key: str
    tokens: int
    longest: int
    number: int = 0
    malformed: int = 0
    spent_s: float = 0.0
    failure: ProviderError | None = None


class _EstimateRose(Exception):
    """While a request waited for its turn, the API turned out to count more tokens than was set aside for."""


class Provider:
    """One model at one API, asked in one ``role`` (patient, judge, …) of a run.

    ``account`` and ``book`` are shared by all providers that use the same ones, ``cache`` by all runs (``reuse`` says
    whether kept answers are taken, too). ``warn(text)`` is called once per problem.
    """

    def __init__(
        self,
        transport: Transport,
        endpoint: Endpoint,
        account: Account,
        *,
        role: str,
        book: Ledger | None = None,
        price: Price | None = None,
        patience: Patience | None = None,
        cache: AnswerCache | None = None,
        reuse: bool = True,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.transport, self.endpoint, self.account, self.role = transport, endpoint, account, role
        self.book, self.price, self.patience = book or Ledger(Budget()), price, patience or Patience()
        self.cache, self.reuse, self.warn = cache, reuse, warn
        self._dense, self._added = 1.0, 0
        self._first, self._first_ended = asyncio.Lock(), False
        self.under_way: dict[Entry, float] = {}
        """Requests that are out, by the account's clock when they went."""
        self._warned = False

    @property
    def model(self) -> str:
        """The name that is asked for."""
        return self.endpoint.api_format.model

    async def chat(self, request: ChatRequest, sample: int = 0) -> ChatResponse:
        """The answer to ``request``, from the cache (with 0 attempts) or the API; ``sample`` numbers the repeats of one
        request. Raises ProviderError where the error's kind, retries, deadline or budget forbid another attempt;
        UserError where there is a budget and no price, where the request cannot be written down before it goes out, or
        where kept answers cannot be read."""
        made = self.endpoint.api_format.request(request)
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
        """Attempts until there is an answer. Raises ProviderError, that of the last attempt."""
        attempts = _Attempts(made, key, tokens_of(made), max(request.max_tokens, _longest(made)))
        while True:
            attempts.number += 1
            try:
                answer, latency = await self._attempt(attempts)
                if answer.finish_reason == "error":
                    self.account.limit.failed()
                    raise ProviderError("transient", "the API broke its answer off", status=200, sent=True)
                await self._keep(key, made, answer)
                return ChatResponse(
                    answer.text, answer.finish_reason, answer.usage, answer.model, latency, attempts.number
                )
            except ProviderError as error:
                if not await self._may_retry(attempts, error):
                    raise

    async def _attempt(self, attempts: _Attempts) -> tuple[WireAnswer, float]:
        """As :meth:`_attempt_paid`. Where there is a budget the first request goes out alone: what it is answered tells
        how many tokens the API counts, and what has to be set aside for the others."""
        if self.book.budget.cap is not None and not self._first_ended:
            async with self._first:
                if not self._first_ended:
                    try:
                        return await self._attempt_paid(attempts)
                    finally:
                        self._first_ended = True
        return await self._attempt_paid(attempts)

    async def _attempt_paid(self, attempts: _Attempts) -> tuple[WireAnswer, float]:
        """One attempt, with the money for it set aside before and given back after it: its answer, and the seconds that
        it took. Raises ProviderError."""
        while True:
            prompt = self._estimate(attempts.tokens)
            entry = await self._reserve(attempts, prompt)
            try:
                async with self.account.turn(prompt + attempts.longest):
                    if self.book.budget.cap is not None and self._estimate(attempts.tokens) > prompt:
                        raise _EstimateRose
                    return await self._send(attempts, entry, prompt)
            except _EstimateRose:
                continue
            except ProviderError as error:
                self._failed(entry, error)
                raise
            finally:
                self.book.release(entry)

    async def _send(self, attempts: _Attempts, entry: Entry, prompt: int) -> tuple[WireAnswer, float]:
        clock, patience = self.account.clock, self.patience
        started, out = clock.now(), False
        if attempts.number == 1:
            self.account.retries.began()
        try:
            await self.book.begin(entry, attempts.key)
            out, self.under_way[entry] = True, started
            left = min(patience.attempt_s, patience.overall_s - attempts.spent_s)
            answer = await attempt(self.transport, self.endpoint, attempts.made, left)
            # Booked before anything else is waited for: from here on it is not lost.
            latency = clock.now() - started
            self._book(attempts, entry, answer, prompt, latency)
            if attempts.number == 1 and answer.finish_reason != "error":
                self.account.limit.succeeded()
            return answer, latency
        except ProviderError:
            raise
        except BaseException:
            if out:  # cancelled under way: nobody knows what became of it
                self.book.unknown(entry, "cancelled")
            raise
        finally:
            self.under_way.pop(entry, None)
            attempts.spent_s += clock.now() - started

    async def _may_retry(self, attempts: _Attempts, error: ProviderError) -> bool:
        """Whether, after ``error``, there is to be another attempt; returns when it may begin."""
        account, patience = self.account, self.patience
        if error.kind == "budget":
            return False
        attempts.failure, error.attempts = error, attempts.number
        wait = max(backoff_s(attempts.number, patience.backoff_s), error.retry_after_s or 0.0)
        attempts.spent_s += wait
        attempts.malformed += error.status == 200
        if error.kind == "rate_limit":
            self._refused(error, wait)
        last = attempts.number > patience.retries or attempts.malformed == MALFORMED_TRIES
        if not error.retryable or last or attempts.spent_s >= patience.overall_s:
            return False
        await account.clock.sleep(wait)
        if error.kind == "rate_limit":  # the API says itself when it may be asked again
            return True
        since = account.clock.now()
        allowed = await account.repeat(patience.overall_s - attempts.spent_s)
        attempts.spent_s += account.clock.now() - since
        allowed = allowed and attempts.spent_s < patience.overall_s
        if not allowed:
            error.message += " (and too many requests fail for this one to be repeated)"
        return allowed

    def _estimate(self, tokens: int) -> int:
        """What the API may count where ``tokens`` are thought to be sent."""
        return round(tokens * self._dense) + self._added

    def _learn(self, tokens: int, counted: int) -> None:
        """The API has ``counted`` tokens where ``tokens`` were thought to be sent."""
        if counted <= self._estimate(tokens):
            return
        if tokens > TELLING:
            self._dense = (counted - self._added) / tokens
        else:
            self._added = math.ceil(counted - tokens * self._dense)

    async def _reserve(self, attempts: _Attempts, prompt: int) -> Entry:
        try:
            return await self.book.reserve(self.role, self.price, prompt, attempts.longest)
        except BudgetSpent as error:
            before = f"; the attempt before: {attempts.failure}" if attempts.failure else ""
            raise ProviderError("budget", f"{error}{before}", attempts=attempts.number - 1) from None

    def _book(self, attempts: _Attempts, entry: Entry, answer: WireAnswer, prompt: int, latency_s: float) -> None:
        self._learn(attempts.tokens, answer.usage.prompt_tokens)
        known = list(self.book.budget.roles[self.role].models)
        self.book.answered(entry, answer.usage, answer.model, latency_s)
        taken, used = prompt + attempts.longest, answer.usage.prompt_tokens + answer.usage.completion_tokens
        self.account.settle(taken, used or taken)
        if known and answer.model not in known:
            self.book.note("model_changed", role=self.role, before=known, now=answer.model)
            before = ", ".join(known)
            self.warn(f"the {self.role}'s API answers as {answer.model} now, before as {before}: answers may differ")

    def _refused(self, error: ProviderError, wait: float) -> None:
        """Leave the API alone as long as it asks, but not for so long that nobody would wait for it."""
        account = self.account
        if wait > self.patience.overall_s:
            error.message += f" (it asks to wait {wait:,.0f} s)"
            account.rate_limited(0.0)
            return
        if wait > LONG_WAIT_S and account.gate.left < wait - LONG_WAIT_S:
            self.warn(f"the {self.role}'s API asks to wait {wait:.0f} s: {error.message}")
        account.rate_limited(wait)

    def _failed(self, entry: Entry, error: ProviderError) -> None:
        if error.sent:
            self.book.unknown(entry, str(error))
        else:
            self.book.release(entry, str(error))
        if error.kind == "transient":
            self.account.limit.failed()

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
    config = made.body.get("generationConfig")
    found = [made.body.get("max_tokens"), made.body.get("max_completion_tokens")]
    found.append(config.get("maxOutputTokens") if isinstance(config, dict) else None)
    return max((limit for limit in found if isinstance(limit, int)), default=0)
