"""Classify replies with another status than 200: the same classes for every API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cbtrain.providers.errors import ErrorKind, ProviderError
from cbtrain.providers.formats.failure_wordings import FILTERS, OVERFLOWS, SPOKEN
from cbtrain.providers.formats.waiting import believed_wait

LONGEST = 300
"""Characters of a message that are kept."""


def failure_of(status: int, headers: Mapping[str, str], text: str, *, lasting: Sequence[str] = ()) -> ProviderError:
    """Return the error for a reply with ``status`` and the body ``text``. ``lasting``: words in the body with which the
    error is permanent whatever the status (an empty account also answers 429)."""
    error = _error(text)
    kind = _kind(status, error, text, lasting)
    wait, note = believed_wait(headers, text) if kind in ("rate_limit", "transient") else (None, "")
    message = _message(error, text) + (f" (it {note})" if note else "")
    return ProviderError(kind, message, status=status, retry_after_s=wait)


def _kind(status: int, error: Mapping[str, Any], text: str, lasting: Sequence[str]) -> ErrorKind:
    lowered = _words(text).lower()
    if any(mark.lower() in lowered for mark in lasting):
        return "permanent"
    if status == 429 or error.get("status") == "RESOURCE_EXHAUSTED":
        return "rate_limit"
    if status != 401 and any(mark in lowered for mark in OVERFLOWS):  # llama.cpp says so with status 500
        return "context_overflow"
    if status != 401 and any(mark in lowered for mark in FILTERS):
        return "content_filter"
    return "transient" if status >= 500 or status in (408, 409, 425) else "permanent"


def _words(text: str) -> str:
    """Return all that the API says: the keys and values of its JSON, but not what it repeats of the prompt."""
    try:
        return json.dumps(_unspoken(json.loads(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _unspoken(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: None if name in SPOKEN else _unspoken(inner) for name, inner in value.items()}
    return [_unspoken(inner) for inner in value] if isinstance(value, list) else value


def _error(text: str) -> Mapping[str, Any]:
    """Return the ``error`` of a JSON body, which all three protocols have; Google sends it in a list at times."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _message(error: Mapping[str, Any], text: str) -> str:
    message = error.get("message")
    words = message if isinstance(message, str) else text
    return " ".join(words.split())[:LONGEST] or "no message"
