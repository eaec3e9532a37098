"""One small call to an API: does it answer, can it be held to a schema, which limits does it name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cbtrain.providers.attempt import Endpoint, attempt
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.formats.api_format import WireAnswer, WireRequest
from cbtrain.providers.limits.clock import Clock
from cbtrain.providers.providers import api_format_of, key_of
from cbtrain.providers.structured import shaped
from cbtrain.providers.transport import Arriving, HttpTransport, Reply, Transport, open_session
from cbtrain.providers.types import ChatRequest, Message

LIMIT = re.compile(r"^(x|anthropic)-ratelimit-|^retry-after")

TOKENS = 512
"""Room for a model that thinks before it answers."""


class _Mood(BaseModel):
    """The answer that the call asks for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mood: Literal["low", "high"]


@dataclass(frozen=True, slots=True)
class Probe:
    """``shaped``: whether the answer matched the schema; ``limits``: headers about limits; ``latency_s``: seconds
    to the complete answer."""

    answer: WireAnswer
    latency_s: float
    shaped: bool
    limits: Mapping[str, str]


@dataclass(slots=True)
class _Overheard:
    """A transport that keeps the headers of the last reply."""

    transport: Transport
    headers: Mapping[str, str] = field(default_factory=dict)

    async def post(
        self, wire_request: WireRequest, secret: Mapping[str, str], arriving: Arriving | None = None
    ) -> Reply:
        reply = await self.transport.post(wire_request, secret, arriving)
        self.headers = reply.headers
        return reply


async def probe(config: ProviderConfig) -> Probe:
    """Ask once, without retries. Raises ProviderError if there is no answer, UserError if there is no key."""
    request = ChatRequest(
        (
            Message("system", 'You sort sentences by mood. Answer with JSON like {"mood": "low"}.'),
            Message("user", "I slept badly and cancelled everything. Low or high?"),
        ),
        max_tokens=TOKENS,
        temperature=0.0,
        seed=1,
        json_schema={**_Mood.model_json_schema(), "additionalProperties": False},
    )
    endpoint = Endpoint(api_format_of(config), key_of(config), config.stream)
    clock = Clock()
    async with open_session() as session:
        transport = _Overheard(HttpTransport(session, config.connect_timeout_s, config.idle_timeout_s))
        began = clock.now()
        answer = await attempt(transport, endpoint, endpoint.api_format.request(request), config.attempt_timeout_s)
        latency = clock.now() - began
    limits = {
        name.lower(): endpoint.redact(value).encode(errors="replace").decode()
        for name, value in transport.headers.items()
        if LIMIT.match(name.lower())
    }
    return Probe(answer, latency, _has_shape(answer.text), limits)


def _has_shape(text: str) -> bool:
    return shaped(text, _Mood)[0] is not None
