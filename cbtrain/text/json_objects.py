"""The JSON objects in an answer that may also hold prose, code fences, schemas and notes in braces."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

MOST_FAILURES = 200
"""Braces that begin no object, after which no further one is tried: each try may read the text to its end."""

BLANKS = re.compile(r"\s*")
KEYED = re.compile(r"""["'\u201c,]|//|/\*|[\w$-]{1,100}\s{0,20}[:=]""")
"""What follows a brace and blanks where a JSON object begins, also one that is not valid JSON; another brace belongs
to prose."""

BRACE = re.compile(r"[{}]")
STRINGS_AND_BRACES = re.compile(r'"(?:[^"\\\n]|\\.)*"?|[{}]')


@dataclass(frozen=True, slots=True)
class Span:
    """An object's place in a text. ``value`` is None if the object is broken, or has a key twice."""

    start: int
    end: int
    value: dict[str, Any] | None
    valid: bool
    """Whether it is valid JSON, if perhaps with a key twice."""


def objects_in(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the text and the value of every complete JSON object in ``text`` that is in no other object.

    An object that is broken, cut off, or has a key twice is left out, and so is every object inside it: a draft inside
    an answer is not the answer.
    """
    return [(text[span.start : span.end], span.value) for span in spans_in(text) if span.value is not None]


def spans_in(text: str, start: int = 0) -> list[Span]:
    """Return the objects in ``text`` from ``start`` on that are in no other one, broken ones too, in order."""
    spans: list[Span] = []
    broken: int | None = None  # the first broken object's number
    depth = failures = 0  # depth: braces of prose that are open
    position = start
    while failures < MOST_FAILURES and (brace := BRACE.search(text, position)):
        if brace.group() == "}":
            position = brace.end()
            if depth == 0 and broken is not None:  # the broken object ends here: what seemed to follow is inside it
                spans[broken:] = [Span(spans[broken].start, position, None, valid=False)]
            depth = max(depth - 1, 0)
            continue
        span = _object_at(text, brace.start())
        if span is None:
            depth, position, failures = depth + 1, brace.end(), failures + 1
            continue
        if not span.valid:
            failures += 1
            broken = len(spans) if broken is None else broken
        spans.append(span)
        position = span.end
    return spans


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object of ``pairs`` (an ``object_pairs_hook``). Raises ValueError if a key comes twice: nobody
    knows which of the two is meant."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key comes twice")
    return value


def _object_at(text: str, start: int) -> Span | None:
    """Return the object that begins with the brace at ``start``; None if the brace belongs to prose."""
    twice: list[bool] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        twice.extend([True] * (len(value) < len(pairs)))
        return value

    try:
        value, end = json.JSONDecoder(object_pairs_hook=keep).raw_decode(text, start)
        return Span(start, end, None if twice else value, valid=True)
    except (ValueError, RecursionError):
        return Span(start, _end_of(text, start), None, valid=False) if _begins_object(text, start) else None


def _begins_object(text: str, brace: int) -> bool:
    blanks = BLANKS.match(text, brace + 1)
    return blanks is not None and KEYED.match(text, blanks.end()) is not None


def _end_of(text: str, start: int) -> int:
    """Return where the braces from ``start`` on are balanced, else the end of ``text``."""
    depth = 0
    for token in STRINGS_AND_BRACES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return token.end()
    return len(text)
