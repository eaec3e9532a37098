"""Answers as they come: server-sent events (WHATWG HTML, section 9.2), one JSON object each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cbtrain.generation.request import Completion, Piece
from cbtrain.serving.answers.sending import ClientGone, send
from cbtrain.serving.answers.shapes import Shape, usage_of

Stream = AsyncGenerator[Piece | Completion, None]


@dataclass(frozen=True, slots=True)
class Sent:
    """A streamed ``response``; the ``completions`` if all answers ended, else what was wrong (``error``), which the
    client was told."""

    response: web.StreamResponse
    completions: list[Completion]
    error: Exception | None = None


async def stream_answers(
    request: web.BaseRequest,
    streams: Sequence[Stream],
    shape: Shape,
    *,
    choices: int,
    with_usage: bool,
    describe: Callable[[Exception], dict[str, Any]],
    on_first: Callable[[], None] = lambda: None,
) -> Sent:
    """Send ``streams`` as events while they come. A client that is slow gets longer pieces.

    What is wrong with the first of them before it begins is raised, so that it can have a status. A later fault is
    sent as ``describe`` writes it, and ends all. Raises ClientGone if the client is gone or does not read.
    """
    async with AsyncExitStack() as stack:
        for stream in streams:
            await stack.enter_async_context(aclosing(stream))
        first = await anext(streams[0])
        on_first()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        sender = _Sender(request, response)
        try:
            completions = await _send_all(streams, first, shape, sender)
            if with_usage:
                await sender.send(shape.usage(usage_of(completions, choices)))
            await sender.end()
        except ClientGone:
            raise
        except Exception as error:
            await sender.send(describe(error))
            await send(request, response, None)
            return Sent(response, [], error)
    return Sent(response, completions)


async def _send_all(
    streams: Sequence[Stream], first: Piece | Completion, shape: Shape, sender: _Sender
) -> list[Completion]:
    tasks = [
        asyncio.ensure_future(_send_one(index, stream, first if index == 0 else None, shape, sender))
        for index, stream in enumerate(streams)
    ]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # before their streams are closed


async def _send_one(
    index: int, stream: Stream, first: Piece | Completion | None, shape: Shape, sender: _Sender
) -> Completion:
    await sender.send(shape.opening(index))
    item = first if first is not None else await anext(stream)
    while isinstance(item, Piece):
        await sender.send(shape.piece(index, item))
        item = await anext(stream)
    await sender.send(shape.closing(index, item))
    return item


class _Sender:
    """Writes events, one at a time."""

    def __init__(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        self._request, self._response, self._lock = request, response, asyncio.Lock()

    async def send(self, value: dict[str, Any] | None) -> None:
        if value is not None:
            await self._write(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")

    async def end(self) -> None:
        await self._write(b"data: [DONE]\n\n")
        await self._write(None)

    async def _write(self, data: bytes | None) -> None:
        async with self._lock:
            await send(self._request, self._response, data)
