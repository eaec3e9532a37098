"""What ``benchmark.py serve`` sends to a server: honest clients, and those who leave, read slowly or misuse it.

Each kind of client returns how its requests ended, as a count by outcome: a status, with a word if that does not say it
all. Each has a process of its own (:func:`send`), so that none waits for another kind.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

MEGABYTE = 2**20
LEAVES_AFTER = 3
"""Pieces of a stream that a client reads before it leaves."""
RECEIVE_BUFFER = 4_096
SIPS_PER_SECOND, SIP = 5, 512

Outcomes = Counter[str]


@dataclass(slots=True)
class Load:
    """Asks the server at ``url`` (without a path) with ``key``. ``context`` is its longest chat in tokens, ``longest``
    the characters of its longest token."""

    url: str
    key: str
    context: int
    longest: int
    session: aiohttp.ClientSession
    drawn_tokens: int = field(default=0, init=False)
    """Tokens that clients got to the end of their streams."""

    async def clients(self, count: int, tokens: int) -> Outcomes:
        """Stream ``count`` answers of ``tokens`` tokens at once; every third client leaves in mid-stream."""
        return await _all(self._client(number, tokens, leaves=number % 3 == 2) for number in range(count))

    async def _client(self, number: int, tokens: int, *, leaves: bool) -> str:
        pieces, ended, usage = 0, False, 0
        body = self._chat(f"I feel low. {number}", tokens) | {"stream": True, "stream_options": {"include_usage": True}}
        async with self._post(body) as reply:
            if reply.status != 200:
                return await _refusal(reply)
            async for line in reply.content:
                if leaves and pieces == LEAVES_AFTER:
                    reply.close()
                    return "200, left"
                if line.startswith(b"data: {"):
                    pieces += 1
                    usage = (json.loads(line[6:]).get("usage") or {}).get("completion_tokens", usage)
                ended = ended or line.startswith(b"data: [DONE]")
        self.drawn_tokens += usage
        return "200" if ended and usage == tokens else f"200, but {usage} tokens and {ended=}"

    async def slow_readers(self, count: int, tokens: int, seconds: float) -> Outcomes:
        """Ask for ``count`` streams with log-probabilities, which no buffer on the way can hold, read some bytes a
        second of each for ``seconds``, then leave."""
        return await _all(self._slow_reader(tokens, seconds) for _ in range(count))

    async def _slow_reader(self, tokens: int, seconds: float) -> str:
        body = self._chat("I feel low.", tokens) | {"stream": True, "logprobs": True, "top_logprobs": 20}
        reader, writer = await self._connect()
        try:
            writer.write(self._raw(json.dumps(body).encode()))
            status = (await reader.readline()).split()[1].decode()
            for _ in range(round(seconds * SIPS_PER_SECOND)):
                await reader.read(SIP)
                await asyncio.sleep(1 / SIPS_PER_SECOND)
            return status
        finally:
            writer.transport.abort()

    async def half_open(self, count: int) -> Outcomes:
        """Open ``count`` connections that never send a whole request, and wait until the server closes them."""
        return await _all(self._half_open(number) for number in range(count))

    async def _half_open(self, number: int) -> str:
        reader, writer = await self._connect()
        try:
            if number % 2:
                writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            answer = await reader.read()
        except ConnectionResetError:
            return "closed"
        finally:
            writer.transport.abort()
        return answer.split()[1].decode() if answer else "closed"

    async def large_bodies(self, count: int, megabytes: float) -> Outcomes:
        """Send ``count`` bodies that are larger than any chat: half of them say so first, half do not."""
        data = b" " * int(megabytes * MEGABYTE)

        async def pieces() -> AsyncIterator[bytes]:
            for begin in range(0, len(data), MEGABYTE):
                yield data[begin : begin + MEGABYTE]

        return await _all(self._status(data if number % 2 else pieces()) for number in range(count))

    async def wrong_keys(self, count: int) -> Outcomes:
        """Ask ``count`` times with another key each."""
        body = json.dumps(self._chat("I feel low.", 8)).encode()
        keys = (f"{random.getrandbits(128):032x}" for _ in range(count))
        return await _all(self._status(body, key=key) for key in keys)

    async def long_prompts(self, count: int) -> Outcomes:
        """Send ``count`` bodies as large as they may be: text that has to be tokenized before its length is known, very
        many messages, and JSON of very many small things."""
        words = "".join(random.Random(1).choice("abcdefghij klmn") for _ in range(self.context * self.longest))
        bodies = (
            self._chat(words, 8),
            self._chat("x", 8) | {"messages": [{"role": "user", "content": ""}] * (16 * self.context // 10)},
            {"model": "base", "prompt": [1] * (20 * self.context), "max_tokens": 8},
            self._chat("x", 8) | {"tools": [[]] * (15 * self.context)},
            self._chat("x", 8) | {"logit_bias": {str(token): 0.0 for token in range(4 * self.context)}},
        )
        sent = [json.dumps(body).encode() for body in bodies]
        paths = ["completions" if "prompt" in body else "chat/completions" for body in bodies]
        return await _all(
            self._status(sent[number % len(sent)], path=paths[number % len(sent)]) for number in range(count)
        )

    def _chat(self, text: str, tokens: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": text}]
        return {"model": "base", "messages": messages, "max_tokens": tokens, "min_tokens": tokens, "temperature": 2.0}

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        return self.session.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)

    async def _status(self, data: Any, *, path: str = "chat/completions", key: str | None = None) -> str:
        headers = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}
        async with self.session.post(f"{self.url}/v1/{path}", data=data, headers=headers) as reply:
            return await _refusal(reply) if reply.status != 200 else "200"

    def _raw(self, body: bytes) -> bytes:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.url.removeprefix("http://").split(":")
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        plug.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plug, (host, int(port)))
        return await asyncio.open_connection(sock=plug, limit=RECEIVE_BUFFER)


async def _refusal(reply: aiohttp.ClientResponse) -> str:
    """Return the status of a refused request, marked if its body is not the protocol's error."""
    try:
        if (await reply.json())["error"]["message"]:
            return str(reply.status)
    except (aiohttp.ClientPayloadError, ConnectionError, ValueError, KeyError, TypeError):
        pass
    return f"{reply.status}, but no JSON"


async def _all(outcomes: Iterable[Awaitable[str]]) -> Outcomes:
    """Wait for all ``outcomes`` at once; what went wrong counts by its type."""
    ended = await asyncio.gather(*outcomes, return_exceptions=True)
    return Counter(outcome if isinstance(outcome, str) else type(outcome).__name__ for outcome in ended)


KINDS: Mapping[str, Callable[[Load, Namespace], Awaitable[Outcomes]]] = {
    "clients": lambda load, sizes: load.clients(sizes.clients, sizes.tokens),
    "slow readers": lambda load, sizes: load.slow_readers(sizes.slow, sizes.slow_tokens, sizes.seconds),
    "half-open": lambda load, sizes: load.half_open(sizes.half_open),
    "large bodies": lambda load, sizes: load.large_bodies(sizes.large, sizes.megabytes),
    "wrong keys": lambda load, sizes: load.wrong_keys(sizes.wrong_keys),
    "long prompts": lambda load, sizes: load.long_prompts(sizes.long),
}


def send(kind: str, sizes: Namespace, make: Callable[[aiohttp.ClientSession], Load]) -> None:
    """For each line of standard input send what ``kind`` sends, and print a line of JSON: its ``outcomes``, and the
    ``tokens_per_s`` that it got."""

    async def once() -> str:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(300)) as session:
            load = make(session)
            began = time.perf_counter()
            outcomes = await KINDS[kind](load, sizes)
            rate = load.drawn_tokens / (time.perf_counter() - began)
        return json.dumps({"outcomes": outcomes, "tokens_per_s": rate})

    print("ready", flush=True)
    for _ in sys.stdin:
        print(asyncio.run(once()), flush=True)
