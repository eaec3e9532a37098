"""Store a request's body as what is new in it: each turn of a dialogue repeats all that was said before.

A list of messages is stored as the place of an earlier line whose list begins with the same messages, and the rest; a
long field (a schema, a system prompt) as the place of the line that has it. Places are offsets in the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

LONG = 200
"""Characters from which a field is stored once."""

MOST_KNOWN = 500_000
"""Beginnings of lists, and long fields, that are remembered: some 100 MB. The oldest are forgotten first, which costs
room in the file and nothing else."""

Body = dict[str, Any]
Known = dict[bytes, tuple[int, int]]


class Folding:
    """What is in a file so far. Only lines that were written are remembered (:meth:`remember`)."""

    def __init__(self) -> None:
        self._known: Known = {}

    def fold(self, body: Mapping[str, Any], place: int) -> tuple[Body, list[str], Known]:
        """Return ``body`` for a line at ``place``, the names of its fields that are stored as a reference, and what is
        to be remembered once the line is written."""
        folded: Body = {}
        names: list[str] = []
        new: Known = {}
        for name, value in body.items():
            if isinstance(value, list):
                before, count = self._beginning(name, value, place, new)
                reference: Body = {"at": before, "first": count, "more": value[count:]}
            else:
                text = _canonical(value)
                digest = _digest(name.encode(), text)
                before, count = self._known.get(digest, (place, 0)) if len(text) > LONG else (place, 0)
                if len(text) > LONG and not count:
                    new[digest] = (place, 1)
                reference = {"at": before}
            folded[name] = reference if count else value
            names += [name] if count else []
        return folded, names, new

    def remember(self, new: Known) -> None:
        """Remember what a line that was written holds."""
        self._known |= new
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _beginning(self, name: str, values: list[Any], place: int, new: Known) -> tuple[int, int]:
        """Return the place of the line whose list has the most values in common with the beginning of ``values``, and
        how many."""
        digest, longest = name.encode(), (place, 0)
        for count, value in enumerate(values, 1):
            digest = _digest(digest, _canonical(value))
            known = self._known.get(digest)
            if known is None:
                new[digest] = (place, count)
            else:
                longest = known
        return longest


def unfold(body: Mapping[str, Any], names: list[str], read: Callable[[int], tuple[Body, list[str]]]) -> Body:
    """Return the body that was folded. ``read(place)`` returns a body and its names as they are stored. Raises
    LookupError if a line that is needed cannot be read."""
    return {name: _restored(name, value, read) if name in names else value for name, value in body.items()}


def _restored(name: str, reference: Any, read: Callable[[int], tuple[Body, list[str]]]) -> Any:
    """Follow the references of a field: a dialogue has one for each of its requests."""
    ends: list[Any] = []
    wanted: int | None = None
    while True:
        more = reference.get("more")
        if more is not None:
            part = more if wanted is None else more[: max(0, wanted - reference["first"])]
            ends[:0] = part
            wanted = reference["first"] if wanted is None else min(wanted, reference["first"])
        body, names = read(reference["at"])
        if name not in names:
            return [*body[name][:wanted], *ends] if more is not None else body[name]
        reference = body[name]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")


def _digest(before: bytes, text: bytes) -> bytes:
    return blake2b(before + b"\0" + text, digest_size=12).digest()
