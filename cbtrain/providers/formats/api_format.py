"""The interface of an API format: write a request, read an answer or a failure. No network here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from cbtrain.providers.errors import ProviderError
from cbtrain.providers.types import ChatRequest, FinishReason, Message, Usage

Structure = Literal["json_schema", "json_object", "none"]
"""How an API can be held to JSON: by a schema, to some object, or not at all (then only the prompt asks for it)."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """An HTTP request with a JSON body. ``headers`` never hold the key. ``whole``: of a request for a stream, the same
    request for an answer in one piece."""

    url: str
    headers: dict[str, str]
    body: dict[str, Any]
    whole: WireRequest | None = None


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """An answer with status 200. ``text`` is empty if the API withheld it. ``thinking`` counts the characters of
    thinking that were removed from it; ``reason`` is the API's own word for its end; ``unread`` says what is wrong with
    its usage, which is then empty."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    model: str
    thinking: int = 0
    reason: str = ""
    unread: str = ""


class Malformed(ValueError):
    """An answer that does not follow the API's format."""


MOST_TOKENS = 10**9
"""More than any request has."""

NUMBER = re.compile(r"[0-9]{1,9}")

CUT_SHORT = "the stream ended before the answer did"


class ApiFormat(Protocol):
    """One API format, for one model at one address."""

    @property
    def model(self) -> str: ...

    @property
    def base_url(self) -> str: ...

    def request(self, request: ChatRequest) -> WireRequest: ...

    def streamed(self, wire_request: WireRequest) -> WireRequest:
        """Return the same request for an answer that is streamed in pieces."""
        ...

    def assemble_stream(self, events: Sequence[Mapping[str, Any]]) -> Any:
        """Return the body that the answer would have had in one piece. Raises Malformed, also if its end is missing.
        Raises ProviderError if an event describes an error."""
        ...

    def authorization(self, key: str) -> dict[str, str]:
        """Return the headers with the key."""
        ...

    def answer(self, body: Any) -> WireAnswer:
        """Return the answer in the parsed body of a reply with status 200. Raises Malformed, and ProviderError if the
        body describes an error."""
        ...

    def failure(self, status: int, headers: Mapping[str, str], text: str) -> ProviderError:
        """Return the error that a reply with another status describes."""
        ...


def text_of(value: Any, what: str) -> str:
    """Return ``value`` as text that UTF-8 can encode (half a surrogate pair cannot). Raises Malformed."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{what} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Malformed(f"{what} is not valid text") from None
    return value


def joined(pieces: Sequence[Any], what: str) -> str:
    """Return the text of ``pieces``; a surrogate pair may be divided between two. Raises Malformed."""
    if not all(piece is None or isinstance(piece, str) for piece in pieces):
        raise Malformed(f"{what} is not text")
    whole = "".join(piece or "" for piece in pieces)
    try:
        return whole.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise Malformed(f"{what} is not valid text") from None


def count_of(usage: Mapping[str, Any], name: str) -> int:
    """Return a number of tokens, 0 if there is none; some APIs write 100.0 or "100". Raises Malformed."""
    value = usage.get(name)
    if value is None:
        return 0
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and NUMBER.fullmatch(value)):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        raise Malformed(f"{name} is not a number of tokens")
    return value


def section(value: Any, what: str) -> Mapping[str, Any]:
    """Return ``value`` as a JSON object, empty if there is none. Raises Malformed."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not an object")
    return value


def entries(value: Any, what: str) -> list[Mapping[str, Any]]:
    """Return ``value`` as a list of JSON objects, empty if there is none. Raises Malformed."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"{what} is not a list")
    return [section(entry, what) for entry in value]


def only_choice(choices: Sequence[Mapping[str, Any]], what: str) -> Mapping[str, Any] | None:
    """Return the one of ``choices``, None if there is none. Raises ProviderError if there are several: nothing says
    which of them is the answer, and each is paid for."""
    if len(choices) > 1:
        raise ProviderError(
            "permanent",
            f"the API gives {len(choices)} answers ({what}), where one was asked for; none of them is used (does "
            "extra_body ask for several?)",
            status=200,
        )
    return choices[0] if choices else None


def usage_of(read: Callable[[Mapping[str, Any]], Usage], usage: Any) -> tuple[Usage, str]:
    """Return the usage that ``read`` finds in ``usage`` and an empty text, or empty usage and what is wrong: an answer
    is kept even if its counts cannot be read. The whole amount reserved for it is then counted as spent."""
    if usage is None or usage == {}:
        return Usage(), "there is none"
    try:
        return read(section(usage, "usage")), ""
    except Malformed as problem:
        return Usage(), str(problem)


def reason_of(reason: Any) -> str:
    """Return the API's word for the end of an answer, as text that can be written down."""
    return "" if reason is None else str(reason)[:60].encode("utf-8", "replace").decode()


def system_apart(messages: Sequence[Message]) -> tuple[list[str], list[Message]]:
    """Return the texts of the system messages, and the other messages."""
    system = [message.content for message in messages if message.role == "system"]
    return system, [message for message in messages if message.role != "system"]


def schema_in_prompt(request: ChatRequest, structure: Structure) -> ChatRequest:
    """Return ``request`` for an API that takes no schema: the system prompt has it. There is one system message, the
    first: some chat templates allow no other."""
    if request.json_schema is None or structure == "json_schema":
        return request
    schema = json.dumps(request.json_schema, ensure_ascii=False)
    asks = f"Answer with one JSON object and nothing else. It must match this JSON schema:\n{schema}"
    system, rest = system_apart(request.messages)
    return replace(request, messages=(Message("system", "\n\n".join([*system, asks])), *rest))
