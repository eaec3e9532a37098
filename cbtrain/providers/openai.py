"""The client of the OpenAI chat protocol: one session, own limit, own deadlines, one retry layer."""

from __future__ import annotations

import asyncio
import json
import os
import time
from types import TracebackType
from typing import Any

import aiohttp

from cbtrain.errors import UserError
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.errors import ProviderError, classify
from cbtrain.providers.retry import backoff_s, parse_retry_after
from cbtrain.providers.types import ChatRequest, ChatResponse, FinishReason, Usage

LONGEST_ERROR = 300
FINISHES: dict[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}


class OpenAIProvider:
    """``async with OpenAIProvider(config) as provider: await provider.chat(request)``.

    Raises UserError where the key's environment variable is not set.
    """

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self._key = ""
        if config.api_key_env:
            self._key = os.environ.get(config.api_key_env, "")
            if not self._key:
                fix = f"export {config.api_key_env}=… before the run."
                raise UserError(
                    "this environment variable holds the API key and is not set", where=config.api_key_env, fix=fix
                )
        self._permits = asyncio.Semaphore(config.max_in_flight)
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"OpenAIProvider({self.config.model} at {self.config.base_url})"

    async def __aenter__(self) -> OpenAIProvider:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.config.connect_timeout_s, sock_read=self.config.read_timeout_s
        )
        # The number of connections is our own limit's business: waiting in aiohttp's pool would run down the time-outs.
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=30)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def chat(self, request: ChatRequest) -> ChatResponse:
        """The answer to ``request``. Raises ProviderError once retries, deadline or the error's kind forbid more."""
        deadline = time.monotonic() + self.config.overall_deadline_s
        body = self._body(request)
        attempt = 0
        while True:
            attempt += 1
            try:
                # The permit is taken before the clock starts and given back while waiting to retry.
                async with self._permits:
                    left = min(self.config.attempt_timeout_s, deadline - time.monotonic())
                    return await asyncio.wait_for(self._attempt(body, attempt), max(left, 0.001))
            except asyncio.TimeoutError:
                error = ProviderError("transient", f"no answer within {left:.0f} s")
            except ProviderError as caught:
                error = caught
            except (aiohttp.ClientError, OSError) as caught:
                # A kept-alive connection that the server has closed raises here too: aiohttp does not repeat a POST.
                error = ProviderError("transient", self._redact(f"{type(caught).__name__}: {caught}"))
            error.attempts = attempt
            wait = max(backoff_s(attempt, self.config.backoff_s), error.retry_after_s or 0.0)
            if not error.retryable or attempt > self.config.max_retries or time.monotonic() + wait > deadline:
                raise error
            await asyncio.sleep(wait)

    async def _attempt(self, body: dict[str, Any], attempt: int) -> ChatResponse:
        if self._session is None:
            raise RuntimeError("enter the provider with `async with` first")
        started = time.monotonic()
        url = f"{self.config.base_url.rstrip('/')}/chat/completions"
        async with self._session.post(url, json=body) as reply:
            raw = await reply.read()
            latency = time.monotonic() - started
            if reply.status != 200:
                text = raw.decode(errors="replace")
                raise ProviderError(
                    classify(reply.status, text),
                    self._redact(_message(text)),
                    status=reply.status,
                    retry_after_s=parse_retry_after(reply.headers.get("Retry-After")),
                )
        try:
            return self._parse(json.loads(raw), latency, attempt)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            problem = self._redact(f"not a chat completion: {raw[:80].decode(errors='replace')!r}")
            raise ProviderError("transient", problem, status=200) from None

    def _parse(self, answer: dict[str, Any], latency: float, attempt: int) -> ChatResponse:
        """The answer's parts; another shape than the protocol's raises KeyError, TypeError and the like."""
        choice = answer["choices"][0]
        text, refusal = choice["message"].get("content") or "", choice["message"].get("refusal") or ""
        usage = answer.get("usage") or {}
        counts = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
        if not all(isinstance(part, str) for part in (text, refusal)) or not all(isinstance(n, int) for n in counts):
            raise TypeError
        text.encode()  # half a surrogate pair could not be written down
        finish: FinishReason = "refusal" if refusal else FINISHES.get(choice.get("finish_reason") or "", "stop")
        return ChatResponse(
            text=text or refusal,
            finish_reason=finish,
            usage=Usage(*counts),
            model=str(answer.get("model") or self.config.model),
            latency_s=latency,
            attempts=attempt,
        )

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        if request.json_schema is not None:
            shape = {"name": "answer", "strict": True, "schema": request.json_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body | self.config.extra_body

    def _redact(self, text: str) -> str:
        text = text.replace(self._key, "[key]") if self._key else text
        return text[:LONGEST_ERROR]


def _message(body: str) -> str:
    """The message of an OpenAI-style error body, else the beginning of the body."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return " ".join(body.split())[:LONGEST_ERROR] or "no message"
