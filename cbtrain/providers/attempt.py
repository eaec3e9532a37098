"""One attempt at a request over HTTP: what goes out, and what comes of it, as an answer or a classified failure."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import aiohttp

from cbtrain.providers.errors import ProviderError
from cbtrain.providers.types import ChatRequest
from cbtrain.providers.wires.wire import Malformed, Wire, WireAnswer

LONGEST_ANSWER = 32 * 1024 * 1024
"""Bytes of a reply; more is no chat answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go: a protocol, and the key that goes with each. The key shows in no text of this object."""

    wire: Wire
    key: str = ""

    def __repr__(self) -> str:
        return f"Endpoint({self.wire!r})"

    def redact(self, text: str) -> str:
        """``text`` without the key, should an API have sent it back."""
        return text.replace(self.key, "[key]") if self.key else text


async def attempt(
    session: aiohttp.ClientSession, endpoint: Endpoint, request: ChatRequest, timeout_s: float
) -> WireAnswer:
    """Post ``request`` once and read the whole answer within ``timeout_s`` seconds.

    Raises ProviderError; its ``sent`` tells whether the API may have done (and billed) the work.
    """
    try:
        return await asyncio.wait_for(_exchange(session, endpoint, request), timeout_s)
    except asyncio.TimeoutError:
        raise ProviderError("transient", f"no whole answer within {timeout_s:.3g} s", sent=True) from None
    except aiohttp.ClientConnectorError as error:
        raise ProviderError("transient", endpoint.redact(_named(error))) from None
    except (aiohttp.ClientError, OSError) as error:
        # A kept-alive connection that the server has closed raises here too: aiohttp does not repeat a POST.
        raise ProviderError("transient", endpoint.redact(_named(error)), sent=True) from None


async def _exchange(session: aiohttp.ClientSession, endpoint: Endpoint, request: ChatRequest) -> WireAnswer:
    wire = endpoint.wire
    made = wire.request(request)
    headers = made.headers | (wire.authorization(endpoint.key) if endpoint.key else {})
    async with session.post(made.url, json=made.body, headers=headers, allow_redirects=False) as reply:
        raw = await _read(reply)
        if reply.status != 200:
            raise wire.failure(reply.status, reply.headers, endpoint.redact(raw.decode(errors="replace")))
    try:
        return wire.answer(json.loads(raw))
    except (Malformed, ValueError, RecursionError) as error:
        beginning = endpoint.redact(raw[:80].decode(errors="replace"))
        problem = f"not an answer of this protocol ({error}): {beginning!r}"
        raise ProviderError("transient", problem, status=200, sent=True) from None


async def _read(reply: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in reply.content.iter_any():
        size += len(part)
        if size > LONGEST_ANSWER:
            raise ProviderError("permanent", f"a reply of more than {LONGEST_ANSWER:,} bytes", status=reply.status)
        parts.append(part)
    return b"".join(parts)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
