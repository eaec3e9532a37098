"""One attempt at a request: send it, and return the answer or raise a classified failure."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, replace

import aiohttp

from cbtrain.providers.answers.clearing import cleared
from cbtrain.providers.costs.reported_usage import checked_usage
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.api_format import ApiFormat, Malformed, WireAnswer, WireRequest
from cbtrain.providers.formats.stream import STREAM, events_of
from cbtrain.providers.formats.waiting import believed_wait
from cbtrain.providers.redaction import redacted, redacted_texts
from cbtrain.providers.transport import Reply, Transport
from cbtrain.stopping import timeout
from cbtrain.text.json_objects import unique

LONGEST_BACKOFF_S = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An API's format, and the key that is sent with each request. ``repr`` does not show the key. With ``stream``
    answers come in pieces, so that a long answer differs from a dead connection."""

    api_format: ApiFormat
    key: str = ""
    stream: bool = False

    def __repr__(self) -> str:
        return f"Endpoint({self.api_format!r})"

    def redact(self, text: str) -> str:
        """Return ``text`` without the key, in case the API has sent it back."""
        return redacted(text, [self.key])


async def attempt(transport: Transport, endpoint: Endpoint, wire_request: WireRequest, timeout_s: float) -> WireAnswer:
    """Send ``wire_request`` once and return its answer, read completely within ``timeout_s`` seconds.

    Raises ProviderError; its ``sent`` is True if the API may have done (and billed) the work.
    """
    secret = endpoint.api_format.authorization(endpoint.key) if endpoint.key else {}
    sent = endpoint.api_format.streamed(wire_request) if endpoint.stream else wire_request
    try:
        async with timeout(timeout_s):
            reply = await transport.post(sent, secret)
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError) as error:
        raise ProviderError("permanent", endpoint.redact(f"not a usable address: {error}")) from None
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise ProviderError("transient", endpoint.redact(f"{type(error).__name__}: {error}")) from None
    except asyncio.TimeoutError:
        raise ProviderError("transient", f"no complete answer within {timeout_s:.3g} s", sent=True) from None
    except (aiohttp.ClientError, OSError) as error:
        # A kept-alive connection that the server has closed raises here too: aiohttp does not repeat a POST.
        raise ProviderError("transient", endpoint.redact(f"{type(error).__name__}: {error}"), sent=True) from None
    try:
        answer = checked_usage(_read(endpoint, reply), wire_request)
    except ProviderError as error:
        error.message = endpoint.redact(error.message)
        raise
    # Once more: a key may have come in pieces.
    return cleared(replace(answer, text=endpoint.redact(answer.text), model=endpoint.redact(answer.model)))


def _read(endpoint: Endpoint, reply: Reply) -> WireAnswer:
    keys = [endpoint.key]
    if not reply.succeeded:
        raise endpoint.api_format.failure(
            reply.status, reply.headers, _clean(reply.body.decode(errors="replace"), keys)
        )
    try:
        text = reply.body.decode("utf-8-sig")
        if STREAM.match(text):
            return endpoint.api_format.answer(
                endpoint.api_format.assemble_stream(redacted_texts(events_of(text), keys))
            )
        return endpoint.api_format.answer(redacted_texts(json.loads(text, object_pairs_hook=unique), keys))
    except ProviderError as error:
        error.sent = True  # it came in the place of an answer, which may be billed
        if error.retryable and error.retry_after_s is None:
            error.retry_after_s, _ = believed_wait(reply.headers, "")
        raise
    except (Malformed, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        beginning = endpoint.redact(reply.body.decode(errors="replace"))[:80]
        problem = f"not an answer of this protocol ({error}): {beginning!r}"
        raise ProviderError("transient", problem, status=reply.status, sent=True) from None


def _clean(text: str, keys: list[str]) -> str:
    """Return the text of a failure without ``keys``; done before it is shortened."""
    try:
        return json.dumps(redacted_texts(json.loads(text), keys), ensure_ascii=False)
    except (ValueError, RecursionError):
        return redacted(text, keys)


def backoff_s(attempt: int, first_s: float) -> float:
    """Return seconds to wait, with full jitter: uniform from 0 to ``first_s``, which doubles with each ``attempt``
    (from 1) up to a minute."""
    return random.uniform(0, min(LONGEST_BACKOFF_S, first_s * 2 ** (attempt - 1)))
