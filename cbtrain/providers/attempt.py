"""One attempt at a request: what goes out, and what comes of it, as an answer or a classified failure."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import aiohttp

from cbtrain.providers.carrier import Carrier, Reply
from cbtrain.providers.deadline import timeout
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.wires.stream import events_of
from cbtrain.providers.wires.wire import Malformed, Wire, WireAnswer, WireRequest

SHORTEST_KEY = 12
"""Letters of a secret; local servers are given ``EMPTY``, ``x`` or ``not-needed``."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go: a protocol, and the key that goes with each. The key shows in no text of this object.
    ``stream`` has answers sent in pieces, so that a long one can be told from a dead connection."""

    wire: Wire
    key: str = ""
    stream: bool = False

    def __repr__(self) -> str:
        return f"Endpoint({self.wire!r})"

    def redact(self, text: str) -> str:
        """``text`` without the key, should an API have sent it back."""
        for written in self._written():
            text = text.replace(written, "[key]")
        return text

    def redact_bytes(self, body: bytes) -> bytes:
        """As :meth:`redact`; nothing is decoded where nothing has to be taken out."""
        if not any(written.encode() in body for written in self._written()):
            return body
        return self.redact(body.decode(errors="replace")).encode()

    def _written(self) -> set[str]:
        """The key as it is and as JSON has it; none for a word that stands in a key's place and may be said."""
        return {self.key, json.dumps(self.key)[1:-1]} if len(self.key) >= SHORTEST_KEY else set()


async def attempt(carrier: Carrier, endpoint: Endpoint, made: WireRequest, timeout_s: float) -> WireAnswer:
    """Send ``made`` once and read the whole answer within ``timeout_s`` seconds.

    Raises ProviderError; its ``sent`` tells whether the API may have done (and billed) the work.
    """
    secret = endpoint.wire.authorization(endpoint.key) if endpoint.key else {}
    sent = endpoint.wire.streamed(made) if endpoint.stream else made
    try:
        async with timeout(timeout_s):
            reply = await carrier.post(sent, secret)
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise ProviderError("permanent", endpoint.redact(f"not a usable address: {error}")) from None
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise ProviderError("transient", endpoint.redact(f"{type(error).__name__}: {error}")) from None
    except asyncio.TimeoutError:
        raise ProviderError("transient", f"no whole answer within {timeout_s:.3g} s", sent=True) from None
    except (aiohttp.ClientError, OSError) as error:
        # A kept-alive connection that the server has closed raises here too: aiohttp does not repeat a POST.
        raise ProviderError("transient", endpoint.redact(f"{type(error).__name__}: {error}"), sent=True) from None
    return _read(endpoint, Reply(reply.status, reply.headers, endpoint.redact_bytes(reply.body)))


def _read(endpoint: Endpoint, reply: Reply) -> WireAnswer:
    if reply.status != 200:
        raise endpoint.wire.failure(reply.status, reply.headers, reply.body.decode(errors="replace"))
    try:
        if reply.headers.get("Content-Type", "").startswith("text/event-stream"):
            return endpoint.wire.answer(endpoint.wire.folded(events_of(reply.body)))
        return endpoint.wire.answer(json.loads(reply.body))
    except ProviderError as error:
        error.sent = True  # it came in the place of an answer, which may be billed
        raise
    except (Malformed, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        beginning = reply.body[:80].decode(errors="replace")
        problem = f"not an answer of this protocol ({error}): {beginning!r}"
        raise ProviderError("transient", problem, status=200, sent=True) from None
