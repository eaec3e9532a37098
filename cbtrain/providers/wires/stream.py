"""Server-sent events: how all three protocols send an answer in pieces (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from cbtrain.providers.wires.wire import Malformed

END = "[DONE]"
"""How the OpenAI protocol says that nothing more comes."""


def events_of(body: bytes) -> list[Mapping[str, Any]]:
    """The JSON object of each event that has one; comments, with which servers keep a connection open, are none. An
    event that the end of ``body`` cuts off is left out. Raises Malformed."""
    events: list[Mapping[str, Any]] = []
    for block in re.split(r"\n\n|\r\n\r\n|\r\r", body.decode("utf-8", "replace"))[:-1]:
        lines = (line.partition(":") for line in re.split(r"\r\n|\n|\r", block))
        data = "\n".join(text.removeprefix(" ") for name, _, text in lines if name == "data")
        if not data or data.strip() == END:
            continue
        event = json.loads(data)
        if not isinstance(event, dict):
            raise Malformed("an event is no object")
        events.append(event)
    return events
