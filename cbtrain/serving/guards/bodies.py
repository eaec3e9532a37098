"""Bodies of requests, read and parsed with limits on their size, their time, and what all of them take at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from cbtrain.serving.errors import Refused
from cbtrain.serving.requests.strict_json import read_json
from cbtrain.stopping import timeout

SECONDS = 30.0
"""In which a body must arrive."""
AT_ONCE = 256 * 2**20
"""Bytes of all bodies that are being read."""
MEGABYTE = 2**20
SHORT = 32 * 1024
"""Bytes of a body up to which it is parsed at once, on the event loop: a millisecond."""

Body = TypeVar("Body")


@dataclass(slots=True)
class BodyReader:
    """Reads JSON bodies of at most ``limit`` bytes."""

    limit: int
    seconds: float = SECONDS
    at_once: int = AT_ONCE
    _reserved: int = field(default=0, init=False)
    _parsing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    @classmethod
    def for_context(cls, tokens: int) -> BodyReader:
        """Return a reader whose limit no honest chat of so many tokens exceeds: 64 bytes a token, and a megabyte for
        everything else."""
        return cls(MEGABYTE + 64 * tokens)

    async def read(self, request: web.BaseRequest, parse: Callable[[dict[str, Any]], Body]) -> Body:
        """Return what ``parse`` makes of the JSON object in the body. Raises Refused as :meth:`read_bytes` and
        :meth:`parse` do."""
        return await self.parse(await self.read_bytes(request), parse)

    async def read_bytes(self, request: web.BaseRequest) -> bytes:
        """Return the body. Raises Refused: 415 if it does not say that it is JSON, 413 if it is too long, 408 if it
        comes too slowly, 429 if too many are being read, 400 if it ends early."""
        if request.content_type != "application/json":
            problem = f"the content type must be application/json, not {request.content_type[:100]}"
            raise Refused(415, problem, code="unsupported_media_type")
        coding = request.headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            raise Refused(415, f"bodies in {coding[:100]!r} are not read; send it without Content-Encoding")
        if (request.content_length or 0) > self.limit:
            raise self._too_long()
        share = self.limit if request.content_length is None else request.content_length
        if self._reserved + share > self.at_once:
            raise Refused(429, "too many bodies are being sent; try again", code="busy", headers={"Retry-After": "1"})
        self._reserved += share
        try:
            async with timeout(self.seconds):
                return await self._read_all(request)
        except asyncio.TimeoutError:
            problem = f"the body did not arrive within {self.seconds:g} s"
            raise Refused(408, problem, code="timeout", headers={"Connection": "close"}) from None
        except web.RequestPayloadError as error:
            raise Refused(400, f"the body cannot be read: {error}") from None
        finally:
            self._reserved -= share

    async def parse(self, data: bytes, parse: Callable[[dict[str, Any]], Body]) -> Body:
        """Return what ``parse`` makes of the JSON object in ``data``; long ones in a thread, one at a time. Raises
        Refused (400) if it holds something else, and what ``parse`` raises."""
        if len(data) <= SHORT:
            return parse(read_json(data))
        async with self._parsing:
            return await asyncio.to_thread(lambda: parse(read_json(data)))

    async def _read_all(self, request: web.BaseRequest) -> bytes:
        parts, length = [], 0
        async for chunk in request.content.iter_any():
            length += len(chunk)
            if length > self.limit:
                raise self._too_long()
            parts.append(chunk)
        return b"".join(parts)

    def _too_long(self) -> Refused:
        problem = f"the body has more than {self.limit:,} bytes, which is more than a full context needs"
        return Refused(413, problem, code="too_large", headers={"Connection": "close"})
