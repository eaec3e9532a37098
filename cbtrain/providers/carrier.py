"""How a request gets to an API and its reply back: over HTTP, or from a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from cbtrain.providers.errors import ProviderError
from cbtrain.providers.wires.wire import WireRequest

LONGEST_REPLY = 32 * 1024 * 1024
"""Bytes; more is no chat answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Carrier(Protocol):
    async def post(self, made: WireRequest, secret: Mapping[str, str]) -> Reply:
        """Send ``made``, with the headers ``secret`` beside its own. Raises what aiohttp raises, and ProviderError."""
        ...


class HttpCarrier:
    """Posts by ``session``, whose connections must have no limit of their own: waiting for one would use up the time of
    an attempt."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def post(self, made: WireRequest, secret: Mapping[str, str]) -> Reply:
        headers = made.headers | dict(secret)
        # A redirect would take the key to another address.
        async with self.session.post(made.url, json=made.body, headers=headers, allow_redirects=False) as reply:
            parts, size = [], 0
            async for part in reply.content.iter_any():
                size += len(part)
                if size > LONGEST_REPLY:
                    raise ProviderError("permanent", f"a reply of more than {LONGEST_REPLY:,} bytes", sent=True)
                parts.append(part)
            return Reply(reply.status, reply.headers, b"".join(parts))


def open_session(connect_s: float = 10.0, silence_s: float = 120.0) -> aiohttp.ClientSession:
    """A session for all providers of a run. ``silence_s`` is the longest time without a byte of an open connection; how
    long an attempt may take is its caller's business."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=silence_s)
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=30)
    return aiohttp.ClientSession(timeout=timeout, connector=connector)
