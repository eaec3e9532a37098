"""Our client beside the official ``openai`` one: requests a second, CPU time, and how late the event loop gets.

``python launch/benchmark.py providers``. The server is a process of its own that answers at once and does nothing else;
each client is measured in a process of its own too, the clients in turn, so that a busy machine slows them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks import command
from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.providers import Providers
from cbtrain.providers.types import ChatRequest, Message

CLIENTS = ("openai", "cbtrain", "cbtrain, booked and kept")
AT_ONCE = 50
WARM_UP = 200
TURN = "I slept badly again and cancelled dinner with my sister. She will think I do not care. " * 4
FAULTS = Path("tests/shared/fault_server.py")

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "What went through your mind then? " * 4},
            }
        ],
        "usage": {"prompt_tokens": 400, "completion_tokens": 30, "total_tokens": 430},
    }
).encode()
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER


class _Answering(asyncio.Protocol):
    """Reads requests as far as it must to know where each ends, and answers at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.pending = transport, b""

    def data_received(self, data: bytes) -> None:
        self.pending += data
        while (end := self.pending.find(b"\r\n\r\n")) >= 0:
            head = self.pending[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self.pending) < end + 4 + length:
                return
            self.pending = self.pending[end + 4 + length :]
            self.transport.write(REPLY)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.sleep(3600)


async def _client(name: str, url: str, count: int) -> dict[str, float]:
    """Requests a second and CPU seconds of this process for one request."""
    async with AsyncExitStack() as stack:
        ask = await _opened(name, url, stack)
        numbers = iter(range(count + WARM_UP))

        async def worker(last: int) -> None:
            for number in numbers:
                await ask(number)
                if number >= last:
                    return

        await asyncio.gather(*(worker(WARM_UP - AT_ONCE) for _ in range(AT_ONCE)))
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker(count + WARM_UP) for _ in range(AT_ONCE)))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"requests_s": count / wall, "cpu_ms": cpu / count * 1000}


async def _opened(name: str, url: str, stack: AsyncExitStack) -> Callable[[int], Awaitable[object]]:
    if name == "openai":
        import openai

        client = await stack.enter_async_context(openai.AsyncOpenAI(api_key="k", base_url=url))

        async def official(number: int) -> object:
            messages: Any = [{"role": "system", "content": TURN}, {"role": "user", "content": f"{TURN}{number}"}]
            return await client.chat.completions.create(
                model="m", messages=messages, max_tokens=80, temperature=0.7, top_p=0.9
            )

        return official
    booked = name != "cbtrain"
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    settings = ProvidersConfig(answers=str(folder / "answers.sqlite"))
    events = stack.enter_context(_Lines(folder / "events.jsonl")) if booked else None
    providers = await stack.enter_async_context(Providers(settings, events=events))
    config = ProviderConfig.model_validate(
        {
            **{"base_url": url, "model": "m", "first_in_flight": AT_ONCE, "max_in_flight": AT_ONCE},
            **({"api_key_env": "BENCHMARK_KEY", "price": {"input": 1, "output": 1}} if booked else {}),
        }
    )
    os.environ["BENCHMARK_KEY"] = "k"
    provider = await providers.open(config, "patient")

    async def ours(number: int) -> object:
        messages = (Message("system", TURN), Message("user", f"{TURN}{number}"))
        return await provider.chat(ChatRequest(messages, max_tokens=80, temperature=0.7, top_p=0.9))

    return ours


class _Lines:
    """What a journal does with an event: one synced line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Lines:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, kind: str, *, sync: bool = True, **fields: object) -> None:
        os.write(self._file, json.dumps({"kind": kind, **fields}).encode() + b"\n")
        if sync:
            self.sync()

    def sync(self) -> None:
        os.fsync(self._file)


async def _lag(url: str) -> dict[str, float]:
    """How late a task that wants to run every 5 ms gets to, while 200 conversations ask 2,000 times in a bad mood."""
    late: list[float] = []
    ended = failed = 0

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while True:
            wanted = loop.time() + 0.005
            await asyncio.sleep(0.005)
            late.append(loop.time() - wanted)

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        events = stack.enter_context(_Lines(folder / "events.jsonl"))
        settings = ProvidersConfig(answers=str(folder / "answers.sqlite"))
        providers = await stack.enter_async_context(Providers(settings, events=events))
        os.environ["BENCHMARK_KEY"] = "k"
        config = ProviderConfig.model_validate(
            {
                **{"base_url": f"{url}/v1", "model": "m", "api_key_env": "BENCHMARK_KEY", "attempt_timeout_s": 2.0},
                **{"idle_timeout_s": 1.0, "backoff_s": 0.05, "price": {"input": 1, "output": 1}, "max_retries": 12},
            }
        )
        provider = await providers.open(config, "patient")

        async def converse(number: int) -> None:
            nonlocal ended, failed
            messages: list[Message] = []
            for turn in range(10):
                messages.append(Message("user", f"{TURN}{number}/{turn}"))
                try:
                    await provider.chat(ChatRequest(tuple(messages), max_tokens=80))
                except ProviderError:
                    failed += 1
                ended += 1

        watching = asyncio.create_task(watch())
        began = time.perf_counter()
        await asyncio.gather(*(converse(number) for number in range(200)))
        wall = time.perf_counter() - began
        watching.cancel()
    late.sort()
    quantiles = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
    lags = {name: late[int(quantile * len(late))] * 1000 for name, quantile in quantiles.items()}
    return {"requests": ended, "failed": failed, "seconds": wall, **lags, "max_ms": late[-1] * 1000}


def _run(*words: str) -> dict[str, float]:
    done = subprocess.run(command("providers", *words), capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def _started(command: Sequence[str]) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip()


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py providers", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="requests of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each client; the best one counts")
    parser.add_argument("--faults", type=Path, default=FAULTS, help="server that fails, for the event loop's lag")
    parsed = parser.parse_args(arguments)
    server, url = _started(command("providers", "serve"))
    try:
        measurements: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
        for _ in range(parsed.rounds):
            for name in CLIENTS:
                measurements[name].append(_run("client", name, url, str(parsed.count)))
    finally:
        server.kill()
    best = {name: max(runs, key=lambda run: run["requests_s"]) for name, runs in measurements.items()}
    print(f"{parsed.count:,} requests, {AT_ONCE} at once, to a server without latency; best of {parsed.rounds}")
    print(f"{'client':<26} {'requests/s':>11} {'ratio':>6} {'CPU ms/request':>15} {'ratio':>6}")
    base = best["openai"]
    for name, run in best.items():
        rate, cpu = run["requests_s"], run["cpu_ms"]
        print(f"{name:<26} {rate:>11,.0f} {rate / base['requests_s']:>6.2f} {cpu:>15.2f} {cpu / base['cpu_ms']:>6.2f}")
    server, url = _started([sys.executable, str(parsed.faults), "0", "0.09"])
    try:
        lag = _run("lag", url)
    finally:
        server.kill()
    print(
        f"event loop, {lag['requests']:,.0f} requests of 200 conversations, 9 % of them in trouble, in "
        f"{lag['seconds']:.0f} s ({lag['failed']:.0f} failed for good): late by {lag['p50_ms']:.1f} ms (median), "
        f"{lag['p99_ms']:.1f} (99 %), {lag['p999_ms']:.1f} (99.9 %), {lag['max_ms']:.1f} at most"
    )
