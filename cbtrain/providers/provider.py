"""One model at one API. The order of a paid request:

1. ``chat`` writes the request in the API's format and looks for its answer in the cache. Only one task of one process
   at a time asks for the same answer; the others wait for it.
2. ``_ask`` makes attempts until one is answered or ``_may_retry`` forbids another one (kind of error, retries,
   deadline, share of repeats). ``_may_retry`` also waits until the next attempt may begin.
3. ``_attempt`` lets the first attempt under a budget end before others begin: its answer corrects the token estimate.
4. ``_attempt_paid`` reserves money in the budget (``_reserve``), then waits for the account's turn: the gate that a
   429 closes, the tokens a minute, the requests in flight. It reserves anew if the estimate rose meanwhile.
5. ``_send`` writes ``request_started`` to the ledger, sends the request over the transport, and reads the answer.
6. ``_book`` writes the answer's cost to the ledger before anything else is awaited. ``_attempt_paid`` then releases
   the money that was not used.
7. ``_keep`` writes the answer to the cache, for this run and others.

Whatever waits before a request is sent is ``interruptible``: after a stop signal no request is sent, and those that
were sent are answered and booked.

The methods below stand in this order.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field

from cbtrain.errors import UserError
from cbtrain.providers.attempt import Endpoint, attempt, backoff_s
from cbtrain.providers.caching.cache import AnswerCache, request_key
from cbtrain.providers.costs.budget import BudgetSpent
from cbtrain.providers.costs.ledger import Billing, Entry, TokenCounter
from cbtrain.providers.costs.token_estimate import TokenEstimate, answer_tokens, prompt_tokens
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.exchanges.log import ExchangeLog
from cbtrain.providers.formats.api_format import WireAnswer, WireRequest
from cbtrain.providers.limits.account import Account
from cbtrain.providers.transport import Transport
from cbtrain.providers.types import ChatRequest, ChatResponse

MALFORMED_TRIES = 3
"""Attempts at a request that is answered with a status of success and no answer of the protocol: each may be billed."""

LONG_WAIT_S = 60.0
"""Waits of more seconds are reported to the user."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Deadlines in seconds. An attempt's begins when the request goes out, the overall one with the first attempt.
    Waiting for a turn counts for neither, also before a repeat: in a large run it may take hours."""

    attempt_s: float = 180.0
    overall_s: float = 900.0
    retries: int = 8
    backoff_s: float = 1.0


@dataclass(slots=True)
class _Attempts:
    """One request and the attempts at it so far. ``prompt_tokens`` and ``answer_tokens`` are estimates, ``number``
    counts the attempts, ``malformed`` those that were answered with no answer of the protocol. ``spent_s`` seconds of
    the overall deadline are used up; ``failure`` is the error of the last attempt."""

    wire_request: WireRequest
    key: str
    prompt_tokens: int
    answer_tokens: int
    number: int = 0
    malformed: int = 0
    spent_s: float = 0.0
    failure: ProviderError | None = None
    call: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def request(self) -> str:
        """The name of the request in the run's files: two sessions may ask the same."""
        return f"{self.key}/{self.call}"


class Provider:
    """One model at one API, asked in one role of a run.

    Providers of one API key share ``account``, providers of one run the ledger in ``billing``, all runs ``cache``.
    After ``account.stop`` no request is sent. ``warn(text)`` is called once per problem.
    """

    def __init__(
        self,
        transport: Transport,
        endpoint: Endpoint,
        account: Account,
        billing: Billing,
        *,
        patience: Patience | None = None,
        cache: AnswerCache | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.transport, self.endpoint, self.account = transport, endpoint, account
        self.role, self.price, self.ledger = billing.role, billing.price, billing.ledger
        self.patience, self.cache, self.warn = patience or Patience(), cache, warn
        self.stop = account.stop
        self.counter = TokenCounter(self.role, endpoint.api_format.base_url, endpoint.api_format.model)
        self.estimate = TokenEstimate()
        counts = self.ledger.counted.get(self.counter, [])  # of earlier processes of this run
        for estimated, counted in counts:
            self.estimate.learn(estimated, counted)
        self._first_attempt, self._first_attempt_ended = asyncio.Lock(), bool(counts)
        self.under_way: dict[Entry, float] = {}
        """Requests that have no answer yet, and when each was sent, by the account's clock."""
        self.exchanges: ExchangeLog | None = None
        """Where attempts are written word for word; None: nowhere."""
        self._cache_failed = self._usage_unread = self._waits_for_another = False
        self.answers = self.thoughts = 0
        """Answers taken, and those of them that held thinking, which was taken out."""

    @property
    def model(self) -> str:
        """The model's name in requests."""
        return self.endpoint.api_format.model

    async def chat(self, request: ChatRequest, sample: int = 0) -> ChatResponse:
        """Return the answer to ``request``, from the cache (with 0 attempts) or the API; ``sample`` numbers the repeats
        of one request.

        Raises ProviderError if the error's kind, retries, deadline or budget forbid another attempt. Raises UserError
        if there is a budget and no price, if the ledger cannot be written, or if the cache cannot be read. Raises
        Stopped if a signal came before the request was sent.
        """
        self.stop.refuse_new()
        wire_request = self.endpoint.api_format.request(request)
        key = request_key(wire_request, sample)
        longest_answer = max(request.max_tokens, answer_tokens(wire_request))
        attempts = _Attempts(wire_request, key, prompt_tokens(wire_request), longest_answer)
        if self.cache is None:
            return await self._ask(attempts)
        async with AsyncExitStack() as asking:
            with self.stop.interruptible():
                cached = await asking.enter_async_context(self.cache.ask(key, on_wait=self._say_waiting))
            if cached is None:
                return await self._ask(attempts)
        self.ledger.reused(self.role, key)
        if self.exchanges is not None:
            self.exchanges.reused(attempts.request, self.role, wire_request, cached)
        return self._response(attempts, cached, 0.0)

    def _say_waiting(self) -> None:
        if not self._waits_for_another:
            self.warn(
                f"another process has sent the {self.role}'s API the same request; this process waits for that answer"
            )
        self._waits_for_another = True

    async def _ask(self, attempts: _Attempts) -> ChatResponse:
        """Make attempts until one is answered. Raises ProviderError, that of the last attempt."""
        while True:
            attempts.number += 1
            try:
                answer, latency_s = await self._attempt(attempts)
                if answer.finish_reason == "error":
                    self.account.limit.failed()
                    why = f" (finish reason {answer.reason!r})" if answer.reason else ""
                    raise ProviderError("transient", f"the API ended its answer early{why}", status=200, sent=True)
                if answer.finish_reason == "unknown":
                    raise ProviderError("permanent", _unknown(answer), status=200, sent=True)
            except ProviderError as error:
                error.request = attempts.request
                if not await self._may_retry(attempts, error):
                    raise
            else:
                await self._keep(attempts, answer)
                return self._response(attempts, answer, latency_s)

    def _response(self, attempts: _Attempts, answer: WireAnswer, latency_s: float) -> ChatResponse:
        self.answers += 1
        self.thoughts += answer.thinking > 0
        if answer.thinking and self.thoughts == 1:
            self.warn(f"the {self.role}'s API sends its thinking inside its answers: it is removed and counted")
        return ChatResponse(
            answer.text,
            answer.finish_reason,
            answer.usage,
            answer.model,
            latency_s,
            attempts.number,
            answer.thinking,
            attempts.request,
        )

    async def _may_retry(self, attempts: _Attempts, error: ProviderError) -> bool:
        """Return whether another attempt may follow ``error``, once it may begin."""
        account, patience = self.account, self.patience
        if error.kind == "budget":
            return False
        attempts.failure, error.attempts = error, attempts.number
        wait_s = max(backoff_s(attempts.number, patience.backoff_s), error.retry_after_s or 0.0)
        attempts.spent_s += wait_s
        attempts.malformed += error.status in range(200, 300)
        if error.kind == "rate_limit":
            self._rate_limited(error, wait_s)
        elif error.retryable and wait_s > LONG_WAIT_S:
            self.warn(f"the {self.role}'s API asks to wait {wait_s:,.0f} s: {error.message}")
        last = attempts.number > patience.retries or attempts.malformed == MALFORMED_TRIES
        if not error.retryable or last or attempts.spent_s >= patience.overall_s:
            return False
        with self.stop.interruptible():
            await account.clock.sleep(wait_s)
        if error.kind == "rate_limit":  # the API itself says when to ask again: no share of repeats
            return True
        since = account.clock.now()
        with self.stop.interruptible():
            allowed = await account.repeat(patience.overall_s - attempts.spent_s)
        attempts.spent_s += account.clock.now() - since
        allowed = allowed and attempts.spent_s < patience.overall_s
        if not allowed:
            error.message += " (not sent again: too many requests fail)"
        return allowed

    def _rate_limited(self, error: ProviderError, wait_s: float) -> None:
        """Close the account's gate for as long as the API asks, unless no request would wait that long."""
        account = self.account
        if wait_s > self.patience.overall_s:
            error.message += f" (it asks to wait {wait_s:,.0f} s)"
            account.rate_limited(0.0)
            return
        if wait_s > LONG_WAIT_S and account.gate.left < wait_s - LONG_WAIT_S:
            self.warn(f"the {self.role}'s API asks to wait {wait_s:.0f} s: {error.message}")
        account.rate_limited(wait_s)

    async def _attempt(self, attempts: _Attempts) -> tuple[WireAnswer, float]:
        """As :meth:`_attempt_paid`. Under a budget, others wait here until the first attempt has ended: its answer
        tells how many tokens the API counts, so how much money to reserve. A run that continues knows it from its
        journal."""
        if self.ledger.budget.cap is not None and not self._first_attempt_ended:
            async with AsyncExitStack() as first:
                with self.stop.interruptible():
                    await first.enter_async_context(self._first_attempt)
                if not self._first_attempt_ended:
                    try:
                        return await self._attempt_paid(attempts)
                    finally:
                        self._first_attempt_ended = True
        return await self._attempt_paid(attempts)

    async def _attempt_paid(self, attempts: _Attempts) -> tuple[WireAnswer, float]:
        """Return the answer to one attempt, and the seconds that it took. The money for it is reserved before, and
        released after it. Raises ProviderError."""
        while True:
            prompt = self.estimate.of(attempts.prompt_tokens)
            tokens = prompt + attempts.answer_tokens
            with self.stop.interruptible():
                entry = await self._reserve(attempts, prompt)
            try:
                async with AsyncExitStack() as turn:
                    with self.stop.interruptible():
                        await turn.enter_async_context(self.account.turn(tokens))
                    if self._reserved_enough(attempts, prompt):
                        return await self._send(attempts, entry, prompt)
                    self.account.settle(tokens, used=0)
            except ProviderError as error:
                self._book_failure(entry, error)
                raise
            finally:
                self.ledger.release(entry)

    async def _reserve(self, attempts: _Attempts, prompt: int) -> Entry:
        try:
            return await self.ledger.reserve(self.role, self.price, prompt, attempts.answer_tokens)
        except BudgetSpent as error:
            before = f"; the attempt before failed: {attempts.failure}" if attempts.failure else ""
            raise ProviderError("budget", f"{error}{before}", attempts=attempts.number - 1) from None

    def _reserved_enough(self, attempts: _Attempts, prompt: int) -> bool:
        """Return whether money for ``prompt`` tokens is still enough: the estimate may have risen during the wait."""
        return self.ledger.budget.cap is None or self.estimate.of(attempts.prompt_tokens) <= prompt

    async def _send(self, attempts: _Attempts, entry: Entry, prompt: int) -> tuple[WireAnswer, float]:
        clock, patience = self.account.clock, self.patience
        started, sent = clock.now(), False
        if attempts.number == 1:
            self.account.retries.began()
        try:
            await self.ledger.begin(entry, attempts.key, self.counter, attempts.prompt_tokens)
            sent, self.under_way[entry] = True, started
            left_s = min(patience.attempt_s, patience.overall_s - attempts.spent_s)
            with self._recorded(attempts) as transport:
                answer = await attempt(transport, self.endpoint, attempts.wire_request, left_s)
            # Booked before anything else is awaited: from here on the cost is not lost.
            latency_s = clock.now() - started
            self._book(attempts, entry, answer, prompt, latency_s)
            if attempts.number == 1 and answer.finish_reason != "error":
                self.account.limit.succeeded()
            return answer, latency_s
        except ProviderError:
            raise
        except BaseException:
            if sent:  # cancelled: nobody knows whether the API answers
                self.ledger.unknown(entry, "cancelled")
            raise
        finally:
            self.under_way.pop(entry, None)
            attempts.spent_s += clock.now() - started

    def _recorded(self, attempts: _Attempts) -> AbstractContextManager[Transport]:
        """Return the transport of one attempt: what goes over it is written to the run's requests."""
        if self.exchanges is None:
            return nullcontext(self.transport)
        return self.exchanges.attempt(self.transport, attempts.request, self.role, attempts.number)

    def _book(self, attempts: _Attempts, entry: Entry, answer: WireAnswer, prompt: int, latency_s: float) -> None:
        usage = answer.usage
        self.estimate.learn(attempts.prompt_tokens, usage.prompt_tokens)
        models_before = list(self.ledger.budget.roles[self.role].models)
        self.ledger.answered(entry, usage, answer.model, latency_s)
        reserved, used = prompt + attempts.answer_tokens, usage.prompt_tokens + usage.completion_tokens
        self.account.settle(reserved, used or reserved)
        if answer.unread and not self._usage_unread:
            self._usage_unread = True
            self.warn(
                f"the {self.role}'s API reports usage that cannot be used ({answer.unread}): the whole amount reserved "
                "for such an answer is counted as spent"
            )
        if models_before and answer.model not in models_before:
            self.ledger.note("model_changed", role=self.role, before=models_before, now=answer.model)
            before = ", ".join(models_before)
            self.warn(f"the {self.role}'s API now answers with model {answer.model}, not {before}: answers may differ")

    def _book_failure(self, entry: Entry, error: ProviderError) -> None:
        if error.sent:
            self.ledger.unknown(entry, str(error))
        else:
            self.ledger.release(entry, str(error))
        if error.kind == "transient":
            self.account.limit.failed()

    async def _keep(self, attempts: _Attempts, answer: WireAnswer) -> None:
        """Write ``answer`` to the cache. A cache that cannot be written is reported once; the answer is used anyway."""
        if self.cache is None:
            return
        try:
            await self.cache.keep(attempts.key, attempts.wire_request.body, answer)
        except UserError as error:
            if not self._cache_failed:
                self.warn(str(error))
            self._cache_failed = True


def _unknown(answer: WireAnswer) -> str:
    return (
        f"the API ended its answer with the finish reason {answer.reason!r}, which cbtrain does not know. The answer "
        "is not used, and the request is not sent again (known ones: cbtrain/providers/answers/finish_reasons.py)"
    )
