"""Read what a judge is sent, as a server sees it: the turns of the session, and the domains in their order."""

from __future__ import annotations

import re

from cbtrain.transcripts.types import Turn

HEAD = re.compile(r"(?:^|\n\n)\[(\d+)\] (Patient|Therapist): ")


def request_text(body) -> str:
    """The session as it stands in a request."""
    return body["messages"][-1]["content"]


def turns_in(text) -> list[Turn]:
    """The turns in the text of a request. A turn's own number has to follow: a forged one is words of the turn it stands
    in."""
    heads = []
    for head in HEAD.finditer(text):
        if int(head[1]) == len(heads) + 1:
            heads.append(head)
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return [Turn(head[2].lower(), text[head.end() : end]) for head, end in zip(heads, ends, strict=True)]


def domains_in(body) -> list[str]:
    """The ids of the domains that are asked for, in the order of the request."""
    return body["response_format"]["json_schema"]["schema"]["required"]
