"""``cbtrain serve`` under load and misuse: statuses, what leaks, and how long ``GET /health`` takes meanwhile.

``python launch/benchmark.py serve [--clients N] [--slow N] [--half-open N] [--large N] … [--json FILE]``

A real server process over a tiny random model, on loopback. Phases one after the other, then all together, twice (what
grows the second time, leaks):

- ``idle``: nobody but the probe.
- ``clients``: so many streams at once; every third client leaves in mid-stream.
- ``slow readers``: read 2.5 kB a second of streams that no buffer can hold.
- ``half-open``: connections that never send a whole request.
- ``large bodies``: 50 MB each, half of them without a Content-Length.
- ``wrong keys``.
- ``long prompts``: bodies as large as they may be, of text, of messages, of small JSON values.

Each kind of client has a process of its own. Another one asks ``GET /health`` 20 times a second on one connection; a
request that could not be sent in time counts from when it should have been. The exit status is 1 if a status was wrong
or something leaked. The last rows are the event loop's lag (of a timer of 5 ms) in a process with ``LocalModel``: idle,
and while 32 streams are drawn and long prompts arrive.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import LAUNCHER, command
from benchmarks.random_llama import save_random_llama
from benchmarks.serve_lag import lag, quantiles
from benchmarks.serve_load import KINDS, Load, send

KEY = "benchmark-key"
CONTEXT, SLOTS = 8192, 64
TEXT = "I feel low. What went through your mind? That I fail. How sure are you, from 0 to 100? Very sure, I think. "
RUN = "=" * 128
"""Vocabularies have such tokens, and a text may then have so many characters for each token of the context."""
SIZES: tuple[tuple[str, Any, str], ...] = (
    ("clients", 500, "streams at once"),
    ("tokens", 64, "tokens of a client's answer"),
    ("slow", 100, "slow readers"),
    ("slow-tokens", 250, "tokens of the stream that a slow reader asks for"),
    ("seconds", 15.0, "for which slow readers read"),
    ("half-open", 1000, "connections without a request"),
    ("large", 8, "large bodies"),
    ("megabytes", 50.0, "of a large body"),
    ("wrong-keys", 500, "requests with a wrong key"),
    ("long", 50, "long prompts"),
)
PROBES_PER_SECOND = 20
SETTLE_SECONDS = 30.0
GROWTH = 128 * 2**20
"""Bytes by which memory may grow from the last but one to the last time that all come together: what the allocator
keeps differs by some 80 MB from one time to the next."""
MOST_MEMORY = 2**30
"""Bytes that the server may take beyond what it takes when idle."""
GAUGES = ("cache_slots_busy", "requests_running", "requests_waiting", "answers_asked_for")
WORDS_OF_DEFECTS = re.compile("Traceback|defect:|Error handling|never retrieved|Unhandled")

ALLOWED = {
    "clients": {"200", "200, left"},
    "slow readers": {"200"},
    "half-open": {"408", "closed"},
    "large bodies": {"413"},
    "wrong keys": {"401"},
    "long prompts": {"400"},
}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmark.py serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, number, text in SIZES:
        parser.add_argument(f"--{name}", type=type(number), default=number, help=text)
    parser.add_argument("--lag-seconds", type=float, default=15, help="for which the event loop's lag is measured")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of clients")
    parser.add_argument("--rounds", type=int, default=2, help="how often all come together")
    parser.add_argument("--threads", type=int, default=1, help="of the server")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--probe", nargs=2, metavar=("URL", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--send", nargs=2, metavar=("KIND", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--lag", nargs=2, metavar=("FOLDER", "STREAMS"), help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.probe:
        _probe(*parsed.probe)
        return
    if parsed.send:
        kind, url = parsed.send
        send(kind, parsed, lambda session: Load(url, KEY, CONTEXT, len(RUN), session))
        return
    if parsed.lag:
        folder, streams = parsed.lag
        print(
            json.dumps(
                asyncio.run(
                    lag(folder, int(streams), RUN * (CONTEXT // 16) + TEXT * (CONTEXT // 4), parsed.lag_seconds)
                )
            )
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder))
        rows, faults = asyncio.run(_measure(Path(folder), parsed))
        for streams in (0, 32):
            words = ("--lag", folder, str(streams), "--lag-seconds", str(parsed.lag_seconds))
            done = subprocess.run(command("serve", *words), stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout) | {"phase": f"event loop, {streams} streams"})
            print(f"event loop with {streams} streams: late by {_three(rows[-1])}")
    if parsed.json:
        parsed.json.write_text(json.dumps({"rows": rows, "faults": faults}, indent=2) + "\n")
    for fault in faults:
        print(f"FAULT: {fault}")
    if faults:
        sys.exit(1)


def _make(folder: Path) -> None:
    """Write a tiny model of random weights to ``folder``, with a tokenizer that has long tokens."""
    from cbtrain.tokens.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([TEXT] * 4 + [RUN] * 8, 400, CONTEXT)
    sizes: dict[str, Any] = {
        **{"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT},
        **{"tie_word_embeddings": False, "pad_token_id": tokenizer.pad_token_id},
        **{"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id},
    }
    save_random_llama(folder, sizes)
    tokenizer.save_pretrained(folder)


@dataclass(slots=True)
class Phase:
    """What was seen of a phase. Times are of ``time.perf_counter``, memory is in bytes."""

    name: str
    began: float
    ended: float = 0.0
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    tokens_per_s: float = 0.0

    @property
    def faults(self) -> list[str]:
        """Outcomes that should not be."""
        return [
            f"{self.name}: {count} of {kind} ended with {outcome}"
            for kind, outcomes in self.outcomes.items()
            for outcome, count in outcomes.items()
            if outcome not in ALLOWED[kind]
        ]


@dataclass(slots=True)
class Server:
    """A server process, seen from outside."""

    process: asyncio.subprocess.Process
    url: str
    log: Path

    @property
    def memory(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def gauges(self, session: aiohttp.ClientSession) -> dict[str, int]:
        async with session.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}) as reply:
            text = await reply.text()
        values = dict(re.findall(r"^cbtrain_(\w+) ([\d.]+)$", text, re.M))
        return {name: round(float(values[name])) for name in GAUGES}


@asynccontextmanager
async def _served(folder: Path, threads: int) -> AsyncIterator[Server]:
    """A server of the model in ``folder``. At the end it gets SIGTERM."""
    words = [str(LAUNCHER.parent / "serve.py"), "--model", str(folder), "--name", "base", "--port", "0"]
    words += ["--slots", str(SLOTS), "--context", str(CONTEXT), "--threads", str(threads)]
    log = folder / "log"
    with log.open("w") as errors:
        environment = {**os.environ, "CBTRAIN_SERVE_KEY": KEY}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=asyncio.subprocess.PIPE, stderr=errors, env=environment
        )
        try:
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
            yield Server(process, line.split()[-1].removesuffix("/v1"), log)
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 60)


async def _measure(folder: Path, sizes: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each phase, and what was wrong."""
    phases: list[Phase] = []
    print(f"load average {_load_average()}; a server with {sizes.threads} thread(s), {SLOTS} slots")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(_served(folder, sizes.threads))
        connector = aiohttp.TCPConnector(force_close=True)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        await Load(server.url, KEY, CONTEXT, len(RUN), session).clients(8, 16)  # first requests are slower
        senders = {kind: await stack.enter_async_context(_sender(kind, sizes, server.url)) for kind in sizes.kinds}
        probes = folder / "probes"
        await stack.enter_async_context(_process("--probe", server.url, str(probes)))
        quiet_memory, quiet_files = server.memory, server.files
        async with _phase("idle", server, session, phases):
            await asyncio.sleep(3)
        for kind, sender in senders.items():
            async with _phase(kind, server, session, phases) as phase:
                await sender(phase)
        for number in range(1, sizes.rounds + 1) if len(senders) > 1 else ():
            async with _phase(f"all together, {number}", server, session, phases) as phase:
                await asyncio.gather(*(sender(phase) for sender in senders.values()))
        left = await _settled(server, session, quiet_files)
    health = [tuple(map(float, line.split())) for line in probes.read_text().splitlines()]
    rows = [_row(phase, health) for phase in phases]
    alone, together = (
        next((p.tokens_per_s for p in phases if p.name.startswith(name)), float("nan")) for name in ("clients", "all")
    )
    peak = max(memory for phase in phases for memory in phase.memory)
    growth = phases[-1].memory[-1] - phases[-2].memory[-1]
    rows.append(_row(Phase("throughout", phases[0].began, phases[-1].ended), health))
    rows[-1] |= {"quiet_memory": quiet_memory, "peak_memory": peak, "growth": growth, "ratio": together / alone}
    _print(rows)
    print(f"tokens/s of clients: {alone:,.0f} alone, {together:,.0f} with all others: {together / alone:.2f}")
    print(
        f"memory: {quiet_memory / 1e6:,.0f} MB before, {peak / 1e6:,.0f} at most, {growth / 1e6:+,.0f} the second time"
    )
    print(f"at the end: {left}; load average {_load_average()}")
    faults = [fault for phase in phases for fault in phase.faults]
    faults += [f"{name} is {value} at the end" for name, value in left.items() if value]
    if wrong := sum(status != 200 for _, _, status in health):
        faults.append(f"{wrong} of {len(health)} probes of /health were not answered with 200")
    if peak - quiet_memory > MOST_MEMORY or growth > GROWTH:
        faults.append(f"{(peak - quiet_memory) / 1e6:,.0f} MB more than at rest, {growth / 1e6:,.0f} the second time")
    if server.process.returncode:
        faults.append(f"the server ended with status {server.process.returncode}")
    faults += [line for line in server.log.read_text().splitlines() if WORDS_OF_DEFECTS.search(line)]
    return rows, faults


@asynccontextmanager
async def _process(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """This benchmark with ``words``, in a process of its own, which has begun. It is ended with the body."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command("serve", *words), stdin=pipe, stdout=pipe)
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield process
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def _sender(kind: str, sizes: argparse.Namespace, url: str) -> AsyncIterator[Callable[[Phase], Awaitable[None]]]:
    """What sends the requests of ``kind``, and notes in a phase how they ended."""
    numbers = [f"--{name}={getattr(sizes, name.replace('-', '_'))}" for name, _, _ in SIZES]
    async with _process(*numbers, "--send", kind, url) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        async def sender(phase: Phase) -> None:
            requests.write(b"\n")
            ended = json.loads(await answers.readline())
            phase.outcomes[kind] = ended["outcomes"]
            phase.tokens_per_s += ended["tokens_per_s"]

        yield sender


@asynccontextmanager
async def _phase(
    name: str, server: Server, session: aiohttp.ClientSession, phases: list[Phase]
) -> AsyncIterator[Phase]:
    """Watch the server while the body runs and until it has settled; add what was seen to ``phases``."""

    async def watch() -> None:
        while True:
            phase.memory.append(server.memory)
            phase.files.append(server.files)
            await asyncio.sleep(0.1)

    files = server.files
    phase = Phase(name, time.perf_counter())
    watching = asyncio.create_task(watch())
    yield phase
    phase.ended = time.perf_counter()
    await _settled(server, session, files)
    watching.cancel()
    phase.memory.append(server.memory)
    phase.files.append(server.files)
    phases.append(phase)


async def _settled(server: Server, session: aiohttp.ClientSession, files: int) -> dict[str, int]:
    """Wait until nothing is under way. Return what is left: open files beyond ``files``, slots, requests."""
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        left = await server.gauges(session)
        await asyncio.sleep(0.1)  # the connection of that request is closed
        left["open files"] = max(0, server.files - files)
        if not any(left.values()) or time.monotonic() > end:
            return left


def _row(phase: Phase, health: list[tuple[float, ...]]) -> dict[str, Any]:
    """Return ``phase`` as plain data; ``health`` holds when a probe was due, its seconds and its status."""
    seconds = [took for due, took, _ in health if phase.began <= due < phase.ended]
    row: dict[str, Any] = {"phase": phase.name, "seconds": phase.ended - phase.began, **quantiles(seconds)}
    if phase.memory:
        row |= {"memory": [phase.memory[0], max(phase.memory), phase.memory[-1]]}
        row |= {"open_files": [phase.files[0], max(phase.files), phase.files[-1]]}
        row |= {"tokens_per_s": phase.tokens_per_s, "outcomes": phase.outcomes, "faults": phase.faults}
    return row


def _three(row: dict[str, Any]) -> str:
    return f"{row['p50_ms']:.1f} ms (median), {row['p99_ms']:.1f} (99 %), {row['max_ms']:.1f} at most"


def _print(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'phase':16} {'s':>6} {'/health p50':>12} {'p99':>8} {'max ms':>8}  memory MB; open files: before/most/after"
    )
    for row in rows:
        numbers = ""
        if "memory" in row:
            memory = "/".join(f"{value / 1e6:.0f}" for value in row["memory"])
            numbers = f"{memory}, {'/'.join(map(str, row['open_files']))}"
        health = f"{row['p50_ms']:12.1f} {row['p99_ms']:8.1f} {row['max_ms']:8.1f}"
        print(f"{row['phase']:16} {row['seconds']:6.1f} {health}  {numbers}")
        for kind, outcomes in row.get("outcomes", {}).items():
            ended = ", ".join(f"{count} × {outcome}" for outcome, count in sorted(outcomes.items()))
            print(f"{'':18}{kind}: {ended}")


def _load_average() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _probe(url: str, path: str) -> None:
    """Ask for /health until killed; write when each request was due, after how many seconds it was answered, and its
    status. A request that fails has the status 0."""
    address = url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=60)
    due = time.perf_counter()
    with Path(path).open("w", buffering=1) as file:
        while True:
            time.sleep(max(0.0, due - time.perf_counter()))
            status = 0
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/health")
                reply = connection.getresponse()
                reply.read()
                status = reply.status
            if not status:
                connection.close()
            answered = time.perf_counter()
            if not file.tell():
                print("ready", flush=True)
            while due < answered:  # those that were due meanwhile would have waited too
                file.write(f"{due} {answered - due} {status}\n")
                due += 1 / PROBES_PER_SECOND
