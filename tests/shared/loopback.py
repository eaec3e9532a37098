"""A real server on the loopback address that answers the OpenAI chat protocol as a script says."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web

from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.providers import Providers


def completion(text, finish="stop", **message):
    return {
        "id": "x",
        "model": "returned-name",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


class Script:
    """Answers requests by ``plan(number, body)``: a completion dict, or a coroutine function of the aiohttp request."""

    def __init__(self, plan: Callable[[int, dict], dict | Callable[[web.Request], Awaitable[web.StreamResponse]]]):
        self.plan = plan
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.in_flight = self.most_in_flight = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            body = json.loads(await request.read())
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            answer = self.plan(len(self.bodies), body)
            return web.json_response(answer) if isinstance(answer, dict) else await answer(request)
        finally:
            self.in_flight -= 1

    @asynccontextmanager
    async def provider(self, role="patient", settings=None, **changes):
        """A provider as a run has it; without changes nobody is paid and nothing is kept."""
        async with Providers(settings or ProvidersConfig()) as providers:
            yield await providers.open(self.config(**changes), role)

    def config(self, **changes) -> ProviderConfig:
        settings = {"base_url": self.url, "model": "m", "backoff_s": 0.01, "attempt_timeout_s": 5}
        return ProviderConfig(**(settings | changes))


def status(code, message="no", headers=None):
    async def reply(request):
        return web.json_response({"error": {"message": message}}, status=code, headers=headers)

    return reply


async def hang(request):
    await asyncio.sleep(3600)
    raise AssertionError


async def cut_off(request):
    reply = web.StreamResponse(headers={"Content-Length": "1000"})
    await reply.prepare(request)
    await reply.write(b'{"choices": [')
    request.transport.close()
    return reply


@asynccontextmanager
async def serve(plan):
    script = Script(plan)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", script.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    script.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield script
    finally:
        await runner.cleanup()


@contextmanager
def background(plan):
    """The same server in a thread, for clients that have an event loop of their own, or none."""
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    found = []

    async def hold():
        async with serve(plan) as script:
            found.append(script)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(hold(),))
    thread.start()
    ready.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
