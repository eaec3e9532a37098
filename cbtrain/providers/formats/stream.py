"""Server-sent events: how all three protocols send an answer in pieces (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from cbtrain.providers.formats.api_format import Malformed
from cbtrain.text.json_objects import unique

END = "[DONE]"
"""How the OpenAI protocol says that nothing more comes."""

STREAM = re.compile(r"\s{0,200}(data|event|id|retry)?:")
"""How a stream of events begins, whatever its headers say; JSON begins otherwise."""

DONE: Mapping[str, Any] = {END: True}
"""The event that stands for it."""


def events_of(body: str) -> list[Mapping[str, Any]]:
    """Return the JSON object of each event that has one, and last :data:`DONE` if the stream says that it is whole;
    comments, with which servers keep a connection open, are none. An event that the end of ``body`` cuts off is left
    out. Raises Malformed, and ValueError if an event is no JSON or has a key twice."""
    events: list[Mapping[str, Any]] = []
    *whole, last = re.split(r"\n\n+", re.sub(r"\r\n?", "\n", body.lstrip()))
    for block in whole:
        data = _field(block, "data")
        if data and data.strip() != END:
            event = json.loads(data, object_pairs_hook=unique)
            if not isinstance(event, dict):
                raise Malformed("an event is not an object")
            events.append(_named(event, block))
    if any(_field(block, "data").strip() == END for block in (*whole[-1:], last)):
        return [*events, DONE]
    with contextlib.suppress(json.JSONDecodeError):  # some servers leave out the blank line behind it
        event = json.loads(_field(last, "data"), object_pairs_hook=unique)
        if isinstance(event, dict):
            events.append(_named(event, last))
    return events


def _named(event: dict[str, Any], block: str) -> Mapping[str, Any]:
    """Return ``event``, as an error if only its name in ``block`` says that it is one."""
    is_error = _field(block, "event").strip() == "error" and not event.get("error")
    return {"error": event or "an error without words"} if is_error else event


def _field(block: str, field: str) -> str:
    lines = (line.partition(":") for line in block.split("\n"))
    return "\n".join(text.removeprefix(" ") for name, _, text in lines if name == field)
