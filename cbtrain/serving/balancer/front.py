"""The one port: requests are checked here, and answered by the process that has their conversation in its cache."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST
from yarl import URL

from cbtrain.errors import UserError
from cbtrain.serving.answers.sending import send
from cbtrain.serving.balancer.choice import conversation_key, preferred
from cbtrain.serving.balancer.joined_metrics import joined_metrics
from cbtrain.serving.balancer.worker import Worker
from cbtrain.serving.errors import Refused
from cbtrain.serving.guards.access import Access
from cbtrain.serving.guards.bodies import BodyReader
from cbtrain.serving.guards.gate import Gate
from cbtrain.serving.metrics import Metrics
from cbtrain.serving.request_log import RECORD, RequestLog

CONNECT_S = 5.0
PROBE_S = 5.0
"""In which a process must say how it is."""
CHANGE_S = 600.0
"""In which a process must have loaded an adapter."""
ATTEMPTS = 2
"""Processes that are asked in turn: a request that ends the first two would end them all."""
PASSED_ON = ("Content-Type", "Cache-Control", "Retry-After", "Allow")
"""Headers of an answer that the client gets."""


class Front:
    """Passes requests on to ``workers``, which ask for ``key`` and have started with ``adapters`` (folders by name).
    ``access`` says who may ask; ``context`` is the models' longest chat, in tokens."""

    def __init__(
        self,
        workers: Sequence[Worker],
        key: str,
        access: Access,
        *,
        context: int,
        adapters: Mapping[str, Path] | None = None,
        log: RequestLog | None = None,
    ) -> None:
        self.workers, self.key, self._changing = list(workers), key, asyncio.Lock()
        self.adapters: dict[str, dict[str, Any]] = {
            name: {"lora_name": name, "lora_path": str(folder)} for name, folder in (adapters or {}).items()
        }
        self.bodies, self.metrics = BodyReader.for_context(context), Metrics(prefix="cbtrain_front")
        self.gate = Gate(access, self.metrics, log)
        self.closed = False
        self.loaded: dict[str, dict[str, Any] | None] = {}
        """Adapters that were loaded (the request that did it) or unloaded (None) since the start, by name."""

    def app(self) -> web.Application:
        app = self.gate.application(
            [
                ("POST", "/v1/chat/completions", self.answer),
                ("POST", "/v1/completions", self.answer),
                ("GET", "/v1/models", self.ask_any),
                ("GET", "/v1/models/{id:.+}", self.ask_any),
                ("GET", "/health", self.health),
                ("HEAD", "/health", self.health),
                ("GET", "/metrics", self.show_metrics),
                ("POST", "/v1/load_lora_adapter", self.change_adapters),
                ("POST", "/v1/unload_lora_adapter", self.change_adapters),
            ]
        )
        app.cleanup_ctx.append(self._workers_run)
        return app

    def close(self) -> int:
        """Refuse new requests; return how many are under way, which may end."""
        self.closed = True
        return sum(worker.under_way for worker in self.workers)

    async def answer(self, http: web.Request) -> web.StreamResponse:
        data = await self.bodies.read_bytes(http)
        body = await self.bodies.parse(data, dict)
        response = await self._pass_on(http, data, conversation_key(body))
        if response.status == 200:  # else it may be any text
            http[RECORD].model = body["model"]
        return response

    async def ask_any(self, http: web.Request) -> web.StreamResponse:
        return await self._pass_on(http, None, b"")

    async def health(self, http: web.Request) -> web.Response:
        states = {worker.name: "ok" if worker.url else "not ready" for worker in self.workers}
        if self.closed or not any(worker.url for worker in self.workers):
            return web.json_response({"status": "ending" if self.closed else "down", "devices": states}, status=503)
        status = "ok" if all(worker.url for worker in self.workers) else "degraded"
        return web.json_response({"status": status, "devices": states})

    async def show_metrics(self, http: web.Request) -> web.Response:
        texts: dict[str, str] = {}

        async def ask(worker: Worker) -> None:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                async with self._ask(worker.url, "GET", "/metrics", total=PROBE_S) as reply:
                    texts[worker.name] = await reply.text()

        await asyncio.gather(*map(ask, self._alive()))
        up = {worker.name: worker.url is not None for worker in self.workers}
        body = self.metrics.text() + joined_metrics(texts, up)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def change_adapters(self, http: web.Request) -> web.Response:
        """Load or unload an adapter in every process; a client that leaves does not interrupt it."""
        body: dict[str, Any] = await self.bodies.read(http, dict)
        if self.closed:
            raise _ending()
        return await asyncio.shield(self._change_adapters(http.path, body))

    async def _change_adapters(self, path: str, body: Mapping[str, Any]) -> web.Response:
        """Do it in one process after the other, one change at a time. If one refuses, those before it are put back."""
        async with self._changing:
            return await self._change_all(path, body)

    async def _change_all(self, path: str, body: Mapping[str, Any]) -> web.Response:
        changed: list[Worker] = []
        result: dict[str, Any] = {}
        for worker in self._alive():
            status, result = await self._post(worker.url, path, body)
            if status != 200:
                for other in changed:
                    await self._undo(other, path, body)
                return web.json_response(result, status=status)
            changed.append(worker)
        if not changed:
            raise _nobody()
        name = str(body.get("lora_name"))
        self.loaded[name] = dict(body) if path.endswith("/load_lora_adapter") else None
        return web.json_response(result)

    async def prepare(self, url: str) -> None:
        """Give a process that was started again, and listens at ``url``, the adapters that the others have. Raises
        UserError if it does not take them."""
        for name, body in list(self.loaded.items()):
            path = "/v1/unload_lora_adapter" if body is None else "/v1/load_lora_adapter"
            status, result = await self._post(url, path, body or {"lora_name": name})
            if status not in (200, 404):
                raise UserError(f"the adapter {name!r} is not there after a new start: {result['error']['message']}")

    async def _pass_on(self, http: web.Request, data: bytes | None, key: bytes) -> web.StreamResponse:
        """Let a process answer. If it ends before its answer has begun, or is full, the next one is asked."""
        if self.closed:
            raise _ending()
        asked: list[Worker] = []
        while len(asked) < ATTEMPTS and (waiting := [w for w in self._alive() if w not in asked]):
            worker = preferred(key, waiting)[0]
            asked.append(worker)
            with worker.busy():
                try:
                    async with self._ask(worker.url, http.method, http.rel_url.raw_path, data) as reply:
                        if reply.status == 429 and len(asked) < ATTEMPTS and len(waiting) > 1:
                            continue
                        return await self._relay(http, reply)
                except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                    worker.say(f"{worker.name}: did not answer ({type(error).__name__})")
        raise _nobody()

    async def _relay(self, http: web.Request, reply: aiohttp.ClientResponse) -> web.StreamResponse:
        headers = {name: reply.headers[name] for name in PASSED_ON if name in reply.headers}
        if reply.content_type != "text/event-stream":
            return web.Response(body=await reply.read(), status=reply.status, headers=headers)
        response = web.StreamResponse(status=reply.status, headers=headers)
        await response.prepare(http)
        try:
            async for chunk in reply.content.iter_any():
                await send(http, response, chunk)
        except aiohttp.ClientPayloadError:  # it ended in mid-stream: what was said cannot be taken back
            error = Refused(500, "the process that answered has ended", code="engine_failed")
            http[RECORD].note = "its process ended in mid-stream"
            await send(http, response, b"data: " + json.dumps(error.body()).encode() + b"\n\n")
        await send(http, response, None)
        return response

    def _alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.url]

    async def _is_well(self, url: str) -> bool:
        try:
            async with self._ask(url, "GET", "/health", total=PROBE_S) as reply:
                return bool(reply.status == 200)
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return False

    def _ask(
        self, url: str | None, method: str, path: str, data: bytes | None = None, *, total: float | None = None
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_S)
        address = URL(f"{url}{path}", encoded=True)  # as it came: not resolved once more
        return self._session.request(method, address, data=data, headers=headers, timeout=timeout)

    async def _post(self, url: str | None, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        try:
            async with self._ask(url, "POST", path, json.dumps(body).encode(), total=CHANGE_S) as reply:
                return reply.status, await reply.json()
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return 500, Refused(500, "a process did not answer", code="engine_failed").body()

    async def _undo(self, worker: Worker, path: str, body: Mapping[str, Any]) -> None:
        name = str(body.get("lora_name"))
        before = self.loaded.get(name, self.adapters.get(name))
        if before:
            await self._post(worker.url, "/v1/load_lora_adapter", {**before, "load_inplace": True})
        elif path.endswith("/load_lora_adapter"):
            await self._post(worker.url, "/v1/unload_lora_adapter", {"lora_name": name})

    async def _workers_run(self, app: web.Application) -> AsyncGenerator[None, None]:
        """Start the processes, keep them while the server runs, and end them."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            tasks: list[asyncio.Task[None]] = []
            try:
                tasks = [asyncio.ensure_future(worker.start()) for worker in self.workers]
                await asyncio.gather(*tasks)
                tasks = [asyncio.ensure_future(worker.keep(self.prepare)) for worker in self.workers]
                tasks += [asyncio.ensure_future(worker.watch(self._is_well)) for worker in self.workers]
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*(worker.close() for worker in self.workers))


def _ending() -> Refused:
    return Refused(503, "the server is ending", code="ending", headers={"Connection": "close"})


def _nobody() -> Refused:
    problem = "no device is ready; those that ended are being started again"
    return Refused(503, problem, code="not_ready", headers={"Retry-After": "5"})
