"""Send a request to an API and return its reply, over HTTP. A recording (``cassette``) can take this place."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.api_format import WireRequest
from cbtrain.stopping import timeout

LONGEST_REPLY = 32 * 1024 * 1024
"""Bytes; more is no chat answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def succeeded(self) -> bool:
        """Whether its status says that the request was done; some gateways answer with another one than 200."""
        return 200 <= self.status < 300


@dataclass(slots=True)
class Arriving:
    """What has arrived of a reply so far; None before its status. It stays if the rest never comes."""

    reply: Reply | None = None


class Transport(Protocol):
    async def post(
        self, wire_request: WireRequest, secret: Mapping[str, str], arriving: Arriving | None = None
    ) -> Reply:
        """Send ``wire_request`` with the additional headers ``secret``, and return the reply; what comes of it is put
        into ``arriving`` if that breaks off. Raises ProviderError, and the errors of aiohttp."""
        ...


class HttpTransport:
    """Posts by ``session``. ``connect_s`` limits the seconds to connect, ``idle_s`` each silence within a reply. The
    caller limits the time until a reply begins, and the whole time."""

    def __init__(self, session: aiohttp.ClientSession, connect_s: float = 10.0, idle_s: float = 60.0) -> None:
        self.session, self.idle_s = session, idle_s
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)

    async def post(
        self, wire_request: WireRequest, secret: Mapping[str, str], arriving: Arriving | None = None
    ) -> Reply:
        headers = wire_request.headers | dict(secret)
        # A redirect would take the key to another address.
        async with self.session.post(
            wire_request.url, json=wire_request.body, headers=headers, allow_redirects=False, timeout=self._timeout
        ) as reply:
            parts: list[bytes] = []
            try:
                await self._read(reply.content, parts)
            finally:
                whole = Reply(reply.status, reply.headers, b"".join(parts))
                if arriving is not None:
                    arriving.reply = whole
            return whole

    async def _read(self, content: aiohttp.StreamReader, parts: list[bytes]) -> None:
        size = 0
        while not content.at_eof():
            try:
                async with timeout(self.idle_s):
                    part = await content.readany()
            except asyncio.TimeoutError:
                problem = f"no part of the reply arrived for {self.idle_s:.3g} s"
                raise ProviderError("transient", problem, sent=True) from None
            size += len(part)
            if size > LONGEST_REPLY:
                raise ProviderError("permanent", f"a reply of more than {LONGEST_REPLY:,} bytes", sent=True)
            parts.append(part)


def open_session() -> aiohttp.ClientSession:
    """Return a session for all providers of a run. It has no limit of connections: waiting for one would use up the
    time of an attempt."""
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=30)
    return aiohttp.ClientSession(connector=connector)
