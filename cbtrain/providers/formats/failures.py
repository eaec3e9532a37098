"""Classify replies with another status than 200, and errors inside those with 200, in the same way for every API."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cbtrain.providers.errors import ErrorKind, ProviderError
from cbtrain.providers.formats.failure_wordings import FILTERS, OVERFLOWS, SPOKEN
from cbtrain.providers.formats.waiting import believed_wait

LONGEST = 300
"""Characters of a message that are kept."""

NUMBER = re.compile(r"[1-9][0-9]{2}")

STATUSES = {
    "invalid_request_error": 400,  # Anthropic, OpenAI
    "invalid_argument": 400,  # Google
    "failed_precondition": 400,
    "authentication_error": 401,
    "unauthenticated": 401,
    "invalid_api_key": 401,  # OpenAI
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "not_found": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "resource_exhausted": 429,
    "overloaded_error": 529,
}
"""The status that an error inside a reply with status 200 would have by itself, by its type, code or status in lower
case; 502 for others. Add an API's own words here."""


def failure_of(status: int, headers: Mapping[str, str], text: str, *, lasting: Sequence[str] = ()) -> ProviderError:
    """Return the error for a reply with ``status`` and the body ``text``. ``lasting``: words in the body with which the
    error is permanent whatever the status (an empty account also answers 429)."""
    error = _error(text)
    kind = _kind(status, error, text, lasting)
    wait, note = believed_wait(headers, text) if kind in ("rate_limit", "transient") else (None, "")
    message = _message(error, text) + (f" (it {note})" if note else "")
    return ProviderError(kind, message, status=status, retry_after_s=wait)


def failure_inside(body: Any, *, lasting: Sequence[str] = ()) -> ProviderError | None:
    """Return the error that ``body``, a reply with status 200 or an event of a stream, describes in place of an answer;
    None if it describes none. ``lasting`` as for :func:`failure_of`."""
    if isinstance(body, list) and len(body) == 1:  # Google
        body = body[0]
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if not error and (body.get("type") == "error" or body.get("object") == "error"):  # the latter is vLLM's
        error = {name: value for name, value in body.items() if (name, value) != ("type", "error")}
    if not error:
        return None
    if not isinstance(error, dict):
        error = {"message": error if isinstance(error, str) else json.dumps(error)}
    return failure_of(_status_inside(error), {}, json.dumps({"error": error}), lasting=lasting)


def _status_inside(error: Mapping[str, Any]) -> int:
    words = [error.get(name) for name in ("code", "status", "status_code", "type")]
    for word in words:
        number = int(word) if isinstance(word, str) and NUMBER.fullmatch(word) else word
        if isinstance(number, int) and 400 <= number < 600:
            return number
    return next((STATUSES[word.lower()] for word in words if isinstance(word, str) and word.lower() in STATUSES), 502)


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
