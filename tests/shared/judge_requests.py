"""Read what a judge is sent, as a server sees it: the turns of the session, and the domains in their order."""

from __future__ import annotations

import json
import re

from cbtrain.transcripts.types import Turn

TRANSCRIPT = re.compile(r"^<<<transcript ([0-9a-f]+)>>>\n(.*)\n<<<end of transcript \1>>>$", re.DOTALL | re.MULTILINE)


def request_text(body) -> str:
    """The session as it stands in a request."""
    return body["messages"][-1]["content"]


def turns_in(text) -> list[Turn]:
    """The turns that a careful reader finds in the text of a request."""
    (found,) = TRANSCRIPT.findall(text)
    lines = [json.loads(line) for line in found[1].split("\n")]
    assert [line["turn"] for line in lines] == [*range(1, len(lines) + 1)]
    return [Turn(line["speaker"], line["text"]) for line in lines]


def turns_read(body) -> list[tuple[str, str]]:
    """Role and text of the turns in a request."""
    return [(turn.role, turn.text) for turn in turns_in(request_text(body))]


def domains_in(body) -> list[str]:
    """The ids of the domains that are asked for, in the order of the request."""
    return body["response_format"]["json_schema"]["schema"]["required"]
