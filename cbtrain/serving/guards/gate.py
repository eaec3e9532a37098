"""The way of every request: check access, answer errors in the protocol's shape, count, log."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from cbtrain.generation.request import AdapterDropped
from cbtrain.serving.errors import Refused
from cbtrain.serving.failures import refusal_of
from cbtrain.serving.guards.access import Access
from cbtrain.serving.guards.connections import Connection
from cbtrain.serving.metrics import Metrics
from cbtrain.serving.request_log import RECORD, Record, RequestLog

GONE = 499
"""The status that the log shows if a client left before its answer was there; nginx's number."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    def __init__(self, access: Access, metrics: Metrics, log: RequestLog | None) -> None:
        self.access, self.metrics, self.log = access, metrics, log

    def application(self, routes: Sequence[tuple[str, str, Handler]]) -> web.Application:
        """Return an application with ``routes`` (method, path, handler), to which this is the way."""
        app = web.Application(middlewares=[self.middleware])
        app.on_response_prepare.append(self.on_prepare)
        for method, path, handler in routes:
            app.router.add_route(method, path, handler, expect_handler=self.invite)
        return app

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await self._pass(request, handler)

    async def _pass(self, http: web.Request, handler: Handler) -> web.StreamResponse:
        if isinstance(http.protocol, Connection):
            http.protocol.has_asked()
        route = http.match_info.route.resource
        path = route.canonical if route else "other"
        record = http[RECORD] = Record(http.method, path, http.remote or "")
        status = GONE
        try:
            response = await self._response(http, handler, record)
            status = response.status
        except ConnectionError:  # the client has left: what is returned here is sent to nobody
            response = web.Response(status=GONE)
        finally:  # also if the handler was cancelled, since the client has left
            self._finish(record, status)
            if isinstance(http.protocol, Connection):
                http.protocol.has_answered()
        return response

    async def _response(self, http: web.Request, handler: Handler, record: Record) -> web.StreamResponse:
        try:
            return await self._answer(http, handler)
        except ConnectionError:
            raise
        except Exception as error:
            refused = refusal_of(error)
            record.note = refused.code or ""  # not the field: its name may be any words
            if refused.status >= 500 and not isinstance(error, Refused | AdapterDropped):
                self._log_failure(error)
            return refused.response()

    async def _answer(self, http: web.Request, handler: Handler) -> web.StreamResponse:
        preflight = http.method == "OPTIONS" and http.headers.get("Origin") in self.access.origins
        self.access.check(http.headers, "/health" if preflight else http.path)
        if preflight:
            return web.Response(status=204)
        return await handler(http)

    async def invite(self, http: web.Request) -> web.StreamResponse | None:
        """Invite the body of a client that asks first whether it may send one (``Expect: 100-continue``)."""
        if http.headers["Expect"].lower() != "100-continue":
            return Refused(417, "the only expectation that is met here is 100-continue").response()
        try:
            self.access.check(http.headers, http.path)
        except Refused as refused:
            return refused.response()
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        http.writer.output_size = 0  # the answer has not begun
        return None

    async def on_prepare(self, http: web.Request, response: web.StreamResponse) -> None:
        """Let pages of allowed origins read ``response``, and nobody guess its type."""
        response.headers.update(self.access.for_page(http.headers))
        response.headers["X-Content-Type-Options"] = "nosniff"

    def _finish(self, record: Record, status: int) -> None:
        self.metrics.count(record, status)
        if self.log:
            self.log.add_request(record, status)

    def _log_failure(self, error: Exception) -> None:
        """Log where a defect is. Its message may hold words of a chat, so only its type is shown."""
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        for cause in causes:
            frames = " < ".join(
                f"{f.name} ({f.filename}:{f.lineno})" for f in reversed(traceback.extract_tb(cause.__traceback__))
            )
            if self.log:
                self.log.add(f"defect: {type(cause).__name__} in {frames or 'no frame of this process'}")
