"""All APIs of one run: one HTTP session, one ledger, one cache of answers, an account for each key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from cbtrain.errors import UserError
from cbtrain.providers.attempt import Endpoint
from cbtrain.providers.caching.cache import AnswerCache, answers_file, open_answers
from cbtrain.providers.cassette import Recorder, Replay, open_recording
from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.ledger import Billing, Events, Ledger
from cbtrain.providers.costs.prices import Price, Prices, load_prices
from cbtrain.providers.exchanges.log import ExchangeLog
from cbtrain.providers.formats.anthropic import AnthropicFormat
from cbtrain.providers.formats.api_format import ApiFormat
from cbtrain.providers.formats.gemini import GeminiFormat
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.limits.account import Account
from cbtrain.providers.limits.clock import Clock, Skipping
from cbtrain.providers.provider import Patience, Provider
from cbtrain.providers.transport import HttpTransport, Transport, open_session
from cbtrain.stopping import StopRequest

FREE = Price(input=0.0, output=0.0)


class Providers:
    """``async with Providers(settings) as providers: judge = await providers.open(config, "judge")``.

    ``events`` takes the events of the run, ``earlier_events`` are those of its earlier processes; without them the
    money spent is not remembered. ``requests``: the run's file of all requests and replies. After ``stop`` no request
    is sent. ``warn(text)`` is called once per problem.
    """

    def __init__(
        self,
        settings: ProvidersConfig,
        *,
        events: Events | None = None,
        earlier_events: Iterable[Mapping[str, Any]] = (),
        requests: Path | None = None,
        stop: StopRequest | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.settings, self.stop, self.warn = settings, stop or StopRequest(), warn
        self.budget = Budget(settings.budget)
        self.prices = load_prices(settings.prices)
        self.ledger = Ledger(self.budget, events)
        self.opened: list[Provider] = []
        self._free = Ledger(Budget())
        self._earlier_events = earlier_events
        self._accounts: dict[tuple[str, str, str], Account] = {}
        self._stack = AsyncExitStack()
        self._cache: AnswerCache | None = None
        self._traffic: Transport | None = None
        self._gaps = False
        self._requests = requests if settings.keep_requests else None
        self._exchanges: ExchangeLog | None = None

    async def __aenter__(self) -> Providers:
        self._stack.enter_context(self.ledger)
        lost = self.ledger.resume(self._earlier_events)
        if self.ledger.repeated:
            self.warn(
                f"{self.ledger.repeated} ends of paid requests come twice in this run's journal; each is counted once"
            )
        if lost:
            self.warn(
                f"{lost} paid requests had no answer when this run was stopped. They may have been billed, so they are "
                f"counted as spent (${self.budget.spent:.2f} in all so far) and sent again"
            )
        self._session = await self._stack.enter_async_context(open_session())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def open(self, config: ProviderConfig, role: str, *, local: bool = False) -> Provider:
        """Return a provider for ``config`` in one ``role``. ``local``: the API is a server that this run has started,
        which is neither recorded nor replayed, and whose answers are not kept.

        Raises UserError if a key, a price beside a budget, or the cache of answers is missing.
        """
        if not self.settings.replay:
            _check_role(self.settings, role, config, self.prices)
        replayed = bool(self.settings.replay) and not local
        paid = config.paid and not replayed
        provider = Provider(
            self._transport(config, local),
            Endpoint(api_format_of(config), "" if replayed else key_of(config), config.stream),
            self._account(config, replayed),
            Billing(role, price_of(config, self.prices), self.ledger) if paid else Billing(role, FREE, self._free),
            patience=Patience(
                config.attempt_timeout_s, config.overall_deadline_s, config.max_retries, config.backoff_s
            ),
            cache=await self._answers(config, local or replayed),
            warn=self.warn,
        )
        if self._requests is not None:
            self._exchanges = self._exchanges or self._stack.enter_context(ExchangeLog(self._requests, self.warn))
            provider.exchanges = self._exchanges
        self.opened.append(provider)
        return provider

    def _warn_once(self, text: str) -> None:
        """All providers of a run write to one recording."""
        if not self._gaps:
            self.warn(text)
        self._gaps = True

    def _transport(self, config: ProviderConfig, local: bool) -> Transport:
        direct = HttpTransport(self._session, config.connect_timeout_s, config.idle_timeout_s)
        if local or not (self.settings.record or self.settings.replay):
            return direct
        if self.settings.replay:
            self._traffic = self._traffic or Replay(self.settings.replay)
            return self._traffic
        assert self.settings.record
        if self._traffic is None and _filled(self.settings.record):
            self.warn(f"{self.settings.record} already holds a recording; new requests are added at its end")
        self._traffic = direct
        return self._stack.enter_context(Recorder(direct, self.settings.record, self._warn_once))

    def _account(self, config: ProviderConfig, replayed: bool) -> Account:
        key = "" if replayed else key_of(config)
        name = (config.kind, config.base_url, sha256(key.encode()).hexdigest())
        if name not in self._accounts:
            start = min(config.first_in_flight, config.max_in_flight)
            clock = Skipping() if replayed else Clock()
            account = Account(start=start, most=config.max_in_flight, clock=clock, stop=self.stop)
            account.limit.on_change = lambda change: self.ledger.note(
                "limit_change", api=config.base_url, limit=change.limit, why=change.why
            )
            self._accounts[name] = account
        account = self._accounts[name]
        account.limit.cap(config.max_in_flight)
        account.cap(config.tokens_per_minute)
        return account

    async def _answers(self, config: ProviderConfig, outside: bool) -> AnswerCache | None:
        if not keeps_answers(config) or outside:
            return None
        if self._cache is None:
            cache = AnswerCache(answers_file(self.settings.answers), reuse=not self.settings.record)
            self._cache = await self._stack.enter_async_context(cache)
        return self._cache


def api_format_of(config: ProviderConfig) -> ApiFormat:
    """Return the API format that ``config.kind`` names."""
    if config.kind == "anthropic":
        return AnthropicFormat(config.model, config.base_url, config.structure, config.sampling, config.extra_body)
    if config.kind == "gemini":
        return GeminiFormat(
            config.model, config.base_url, config.structure, config.seed, config.sampling, config.extra_body
        )
    return OpenAIFormat(
        config.base_url,
        config.model,
        config.structure,
        config.seed,
        config.sampling,
        config.output_limit,
        config.extra_body,
    )


def price_of(config: ProviderConfig, prices: Prices) -> Price | None:
    """Return the price of a million tokens: ``FREE`` if no key is used, None if it is not known."""
    if not config.paid:
        return FREE
    return config.price or prices.of(config.model)


def check(settings: ProvidersConfig, configs: Sequence[tuple[str, ProviderConfig]]) -> None:
    """Check that a run can open ``configs`` (each with its role). Raises UserError if one of them would stop it."""
    prices = load_prices(settings.prices)
    if settings.replay:
        Replay(settings.replay)
        return
    if settings.record:
        os.close(open_recording(settings.record))
    if any(keeps_answers(config) for _, config in configs):
        open_answers(answers_file(settings.answers)).close()
    for role, config in configs:
        _check_role(settings, role, config, prices)


def _check_role(settings: ProvidersConfig, role: str, config: ProviderConfig, prices: Prices) -> None:
    key_of(config)
    if settings.budget is not None and price_of(config, prices) is None:
        hint = "Give the provider a price ({input: …, output: …}), or set no providers.budget."
        raise UserError(f"a budget is set, but the price of {config.model} is not known", where=role, hint=hint)


def keeps_answers(config: ProviderConfig) -> bool:
    """Return whether answers are kept on disk and used again."""
    return config.paid if config.reuse is None else config.reuse


def recorded(settings: ProvidersConfig, config: ProviderConfig) -> bool:
    """Return whether a recording replaces the APIs and holds requests to this one. Raises UserError."""
    return settings.replay is not None and Replay(settings.replay).knows(api_format_of(config))


def _filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def key_of(config: ProviderConfig) -> str:
    """Return the key from the environment, empty if the API needs none. Raises UserError if it is missing."""
    if config.api_key_env is None:
        return ""
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        hint = f"export {config.api_key_env}=… before the run."
        raise UserError(
            "this environment variable holds the API key and is not set", where=config.api_key_env, hint=hint
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        hint = "Copy the key again: the whole key, and nothing else."
        raise UserError("this environment variable does not hold an API key", where=config.api_key_env, hint=hint)
    return key
