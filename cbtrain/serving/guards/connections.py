"""Connections: who opens one and does not ask loses it, and cannot keep others out."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from typing import Any

from aiohttp import web

from cbtrain.serving.errors import Refused
from cbtrain.stopping import timeout

HEADER_SECONDS = 10.0
"""From the opening of a connection to the end of its first request's headers; later, from their first byte."""
MOST_WAITING = 512
"""Connections that have not sent a whole request. If there are more, the oldest of them are closed."""
PATIENCE_SECONDS = 3.0
"""For which each of them is left alone: of a thousand connections that come at once, most may be honest."""
IDLE_SECONDS = 75.0
"""Between two requests of a connection."""
SEND_SECONDS = 60.0
"""In which a client must take a whole answer, and ``SLOWEST`` bytes of it in each second more."""
SLOWEST = 16 * 1024
SEND_BUFFER = 128 * 1024
"""Bytes that the system keeps for a client that reads slowly; by itself it would keep megabytes."""


class Connections:
    """Makes the handlers of connections for ``server``, and knows those of which a request is expected."""

    def __init__(self, server: web.Server, *, header_seconds: float = HEADER_SECONDS) -> None:
        self.server, self.header_seconds = server, header_seconds
        self.waiting: OrderedDict[Connection, float] = OrderedDict()  # since when, oldest first
        self._check: asyncio.TimerHandle | None = None

    def __call__(self) -> Connection:
        return Connection(self)

    def add(self, connection: Connection) -> None:
        self.waiting[connection] = asyncio.get_running_loop().time()
        if len(self.waiting) > MOST_WAITING and self._check is None:
            self._close_oldest()

    def _close_oldest(self) -> None:
        """Close the oldest of the connections that are too many, as soon as they may be closed."""
        loop, self._check = asyncio.get_running_loop(), None
        while len(self.waiting) > MOST_WAITING:
            oldest, since = next(iter(self.waiting.items()))
            if loop.time() < since + PATIENCE_SECONDS:
                self._check = loop.call_at(since + PATIENCE_SECONDS, self._close_oldest)
                return
            del self.waiting[oldest]
            oldest.force_close()


class Connection(web.RequestHandler):
    """One connection: aiohttp's, with a time limit for headers, and errors in the protocol's JSON."""

    __slots__ = ("_answering", "_connections", "_timer")

    def __init__(self, connections: Connections) -> None:
        super().__init__(
            connections.server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=2.0,
            access_log=None,  # type: ignore[arg-type]  # what aiohttp itself takes for none
            auto_decompress=False,  # a few bytes can stand for gigabytes
        )
        self._connections = connections
        self._timer: asyncio.TimerHandle | None = None
        self._answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if connected := transport.get_extra_info("socket"):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        transport.set_write_buffer_limits(0)  # type: ignore[attr-defined]  # what is sent is with the system
        self._expect_request()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._expected()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count > before:  # at once: whatever the loop has to do before it comes to the request
            self.has_asked()
        elif not self._answering and self._timer is None:  # the first part of another request's headers
            self._expect_request()

    def has_asked(self) -> None:
        """Note that the headers of a request have come; its body has limits of its own."""
        self._answering = True
        self._expected()

    def has_answered(self) -> None:
        """Note that the request has been answered: the next one may come."""
        self._answering = False

    def _expect_request(self) -> None:
        self._connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(self._connections.header_seconds, self._too_slow)

    def _expected(self) -> None:
        self._connections.waiting.pop(self, None)
        if self._timer:
            self._timer.cancel()
            self._timer = None

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send what is not sent yet. A client that does not take it is cut off: what waits for it takes memory."""
        size = len(resp.body) if isinstance(resp, web.Response) and isinstance(resp.body, bytes) else 0
        try:
            async with timeout(SEND_SECONDS + size / SLOWEST):
                return await super().finish_response(request, resp, start_time)
        except asyncio.TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return resp, True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp could not read, or what failed outside of the application."""
        self.has_asked()
        self.keep_alive(False)
        if status >= 500:
            self.log_exception("Error handling request", exc_info=exc)
            return Refused(status, "the server failed", code="internal_error").response()
        reason = " ".join((message or str(exc) or "malformed").split())[:200]
        return Refused(status, f"the request is not HTTP as this server reads it: {reason}").response()

    def _too_slow(self) -> None:
        if self.transport is not None:
            body = Refused(408, f"no request came within {self._connections.header_seconds:g} s", code="timeout")
            self.transport.write(_raw(body))
        self.close()
        self.force_close()


def _raw(refused: Refused) -> bytes:
    """Return ``refused`` as it goes over the line where no request was read."""
    response: Any = refused.response()
    head = f"HTTP/1.1 {refused.status} Request Timeout\r\nContent-Type: application/json; charset=utf-8\r\n"
    return f"{head}Content-Length: {len(response.body)}\r\nConnection: close\r\n\r\n".encode() + response.body
