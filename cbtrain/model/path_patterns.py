"""The patterns by which an adapter's settings name linears, matched in bounded time.

``peft`` hands them to :mod:`re`, which tries every way to match one after another: a pattern of ten characters from a
downloaded ``adapter_config.json`` can keep it busy for ever. Here all ways are followed at once, as a set of positions
in the path. A pattern without repeats and alternatives has one way only and is left to :mod:`re`.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any

NEW = sys.version_info >= (3, 11)
sre: Any = importlib.import_module("re._constants" if NEW else "sre_constants")
sre_parser: Any = importlib.import_module("re._parser" if NEW else "sre_parse")

LONGEST, MOST, MOST_FOLLOWED, DEEPEST = 200, 1024, 64, 2
"""Characters of a pattern (the path of a linear has about forty), patterns of a setting, those of them with repeats or
alternatives, and repeats within each other."""

REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT)
ANCHORS = {
    sre.AT_BEGINNING: lambda place, length: place == 0,
    sre.AT_BEGINNING_STRING: lambda place, length: place == 0,
    sre.AT_END: lambda place, length: place == length,
    sre.AT_END_STRING: lambda place, length: place == length,
}
CATEGORIES = {
    sre.CATEGORY_DIGIT: str.isdecimal,
    sre.CATEGORY_NOT_DIGIT: lambda character: not character.isdecimal(),
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_NOT_SPACE: lambda character: not character.isspace(),
    sre.CATEGORY_WORD: lambda character: character.isalnum() or character == "_",
    sre.CATEGORY_NOT_WORD: lambda character: not (character.isalnum() or character == "_"),
}


def check_patterns(patterns: Collection[str]) -> None:
    """Raise ValueError where one of ``patterns`` is no regular expression, is longer than :data:`LONGEST`, repeats
    repeats more than :data:`DEEPEST` deep, or uses what :func:`matches` does not know (back-references, flags, looking
    ahead or back), and where there are too many."""
    if len(patterns) > MOST:
        raise ValueError(f"{len(patterns)} patterns, {MOST} are allowed")
    followed = sum(not isinstance(_parsed(pattern), re.Pattern) for pattern in patterns)
    if followed > MOST_FOLLOWED:
        raise ValueError(f"{followed} patterns with repeats or alternatives, {MOST_FOLLOWED} are allowed")


def matches(pattern: str, path: str) -> bool:
    """Return whether ``pattern`` matches all of ``path``, a dotted name, or its end after a dot, as ``peft`` looks it
    up. Raises ValueError like :func:`check_patterns`."""
    parsed = _parsed(pattern)
    if isinstance(parsed, re.Pattern):
        return parsed.match(path) is not None
    return len(path) in _ends(parsed, path, frozenset({0}))


@lru_cache(maxsize=4 * MOST)
def _parsed(pattern: str) -> Any:
    """Return the parse tree of ``pattern`` with what ``peft`` puts around it, compiled where it has one way only."""
    if len(pattern) > LONGEST:
        raise ValueError(f"pattern of {len(pattern)} characters, {LONGEST} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
            whole = rf"(.*\.)?({pattern})$"
            tree = sre_parser.parse(whole)
            if _known_repeats(tree[1:]) == 0:
                return re.compile(whole)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression ({error})") from None
    except _Unknown as error:
        raise ValueError(f"pattern {pattern!r} uses {error}, which is not supported") from None
    return tree


class _Unknown(Exception):
    """A part of a pattern that is not followed."""


def _known_repeats(tree: Iterable[Any], outer: int = 0) -> int:
    """Return how many repeats and alternatives ``tree`` has; ``outer`` repeats are around it. Raises _Unknown."""
    count = 0
    for kind, value in tree:
        if kind is sre.BRANCH:
            count += 1 + sum(_known_repeats(branch, outer) for branch in value[1])
        elif kind is sre.SUBPATTERN:
            if value[1] or value[2]:
                raise _Unknown("flags")
            count += _known_repeats(value[3], outer)
        elif kind in REPEATS:
            if outer == DEEPEST:
                raise _Unknown("repeats within repeats within repeats")
            count += 1 + _known_repeats(value[2], outer + 1)
        elif kind is sre.AT and value not in ANCHORS:
            raise _Unknown(str(value).lower())
        elif kind not in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN, sre.AT):
            raise _Unknown(str(kind).lower())
    return count


def _ends(tree: Iterable[Any], path: str, starts: frozenset[int]) -> frozenset[int]:
    """Return every place in ``path`` where a match of ``tree`` can end that begins at one of ``starts``."""
    places = starts
    for kind, value in tree:
        if not places:
            return places
        if kind is sre.BRANCH:
            places = frozenset().union(*(_ends(branch, path, places) for branch in value[1]))
        elif kind is sre.SUBPATTERN:
            places = _ends(value[3], path, places)
        elif kind in REPEATS:
            least, most, body = value
            places = _repeated(least, most, body, path, places)
        elif kind is sre.AT:
            places = frozenset(position for position in places if ANCHORS[value](position, len(path)))
        else:
            places = frozenset(
                position + 1 for position in places if position < len(path) and _is_one_of(kind, value, path[position])
            )
    return places


def _repeated(least: int, most: int, tree: Any, path: str, starts: frozenset[int]) -> frozenset[int]:
    # A match only moves forward: after as many rounds as there are places, further ones change nothing.
    rounds = len(path) + 2
    places = starts
    for _ in range(min(least, rounds)):
        before, places = places, _ends(tree, path, places)
        if places == before:
            break
    reached = places
    for _ in range(min(most - least, rounds)):
        places = _ends(tree, path, places)
        if places <= reached:
            break
        reached |= places
    return reached


def _is_one_of(kind: Any, value: Any, character: str) -> bool:
    if kind is sre.ANY:
        return character != "\n"
    if kind is sre.LITERAL:
        return ord(character) == value
    if kind is sre.NOT_LITERAL:
        return ord(character) != value
    negated = value[0][0] is sre.NEGATE
    return negated != any(_holds(item, content, character) for item, content in value[negated:])


def _holds(kind: Any, value: Any, character: str) -> bool:
    if kind is sre.RANGE:
        return bool(value[0] <= ord(character) <= value[1])
    if kind is sre.CATEGORY:
        return bool(CATEGORIES[value](character))
    return ord(character) == value
