"""One request and one response for every API."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "content_filter", "refusal", "error"]
"""``error``: the API broke the answer off. Such an answer is asked for again, and never returned."""


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
    """``model`` is the name the API returned; ``latency_s`` is that of the last attempt."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    model: str
    latency_s: float
    attempts: int

    @property
    def parsed(self) -> Any | None:
        """The JSON object in the text, not validated; None if there is none."""
        try:
            content = json.loads(json_part(self.text))
        except (ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None


def json_part(text: str) -> str:
    """Return the outermost JSON object of a text that may have other words around it, or ``text`` if there is none."""
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text
