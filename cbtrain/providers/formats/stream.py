"""Server-sent events: how all three protocols send an answer in pieces (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from cbtrain.providers.formats.api_format import Malformed

END = "[DONE]"
"""How the OpenAI protocol says that nothing more comes."""

DONE: Mapping[str, Any] = {END: True}
"""The event that stands for it."""


def events_of(body: str) -> list[Mapping[str, Any]]:
    """Return the JSON object of each event that has one, and last :data:`DONE` if the stream says that it is whole;
    comments, with which servers keep a connection open, are none. An event that the end of ``body`` cuts off is left
    out. Raises Malformed."""
    events: list[Mapping[str, Any]] = []
    *whole, last = re.split(r"\n\n+", re.sub(r"\r\n?", "\n", body.lstrip()))
    for block in whole:
        data = _data(block)
        if data and data.strip() != END:
            event = json.loads(data)
            if not isinstance(event, dict):
                raise Malformed("an event is not an object")
            events.append(event)
    if any(_data(block).strip() == END for block in (*whole[-1:], last)):
        return [*events, DONE]
    with contextlib.suppress(ValueError):  # some servers leave out the blank line behind it
        event = json.loads(_data(last))
        if isinstance(event, dict):
            events.append(event)
    return events


def _data(block: str) -> str:
    lines = (line.partition(":") for line in block.split("\n"))
    return "\n".join(text.removeprefix(" ") for name, _, text in lines if name == "data")
