"""One request and one response for every API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cbtrain.text.json_objects import objects_in

FinishReason = Literal["stop", "length", "content_filter", "refusal", "error", "unknown"]
"""``error``: the API broke the answer off. Such an answer is asked for again, and never returned. ``unknown``: the
API's word for it is not known, so nobody knows what the text is worth; it fails."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """``json_schema`` asks for an answer of that shape; the caller still validates it."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. ``prompt_tokens`` are all of the prompt, of which ``cached_tokens`` were read from the API's own cache
    and ``cache_write_tokens`` written to it; ``completion_tokens`` are all that is paid as output, ``reasoning_tokens``
    of them thinking that is not in the text."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """``model`` is the name the API returned; ``latency_s`` is that of the last attempt. ``thinking``: characters of
    thinking that were taken out of the text. ``request`` names the request in the run's files: its key and this call.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    model: str
    latency_s: float
    attempts: int
    thinking: int = 0
    request: str = ""

    @property
    def parsed(self) -> Any | None:
        """The one JSON object in the text, not validated; None if there is none, or several."""
        values = [value for _, value in objects_in(self.text)]
        return values[0] if values and all(other == values[0] for other in values) else None
