"""The JSON objects in an answer that may also hold prose, code fences, schemas and notes in braces."""

from __future__ import annotations

import json
from typing import Any

MOST_FAILURES = 200
"""Braces that begin no object, after which no further one is tried: each try may read the text to its end."""


def objects_in(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return every whole JSON object in ``text`` that stands in no other one: its text, and its value. An object that
    gives one key twice says two things, and is none."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    objects: list[tuple[str, dict[str, Any]]] = []
    failures, place = 0, text.find("{")
    while place >= 0 and failures < MOST_FAILURES:
        try:
            value, end = decoder.raw_decode(text, place)
            objects.append((text[place:end], value))
        except (ValueError, RecursionError):
            end = place + 1
            failures += 1
        place = text.find("{", end)
    return objects


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key comes twice")
    return value
