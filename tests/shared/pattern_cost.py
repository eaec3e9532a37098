"""Bound what a regular expression may cost: the characters a backtracking search tries from one place of a text.

Python's ``re`` tries each way through a pattern until one fits. :func:`steps_from_one_place` reads the parse tree and
multiplies the ways: an upper bound that holds for every text, so no test needs a clock. It is infinite where a repeat
without an end can be followed by something that fails: from each of n places such a repeat may run over n characters.
"""

from __future__ import annotations

import math
import re
import string
from dataclasses import dataclass
from functools import cache
from typing import Any

try:
    from re import _compiler as compiler
    from re import _constants as sre
    from re import _parser as parser
except ImportError:  # Python 3.10
    import sre_compile as compiler
    import sre_constants as sre
    import sre_parse as parser

ALPHABET = string.printable + "\u00a0\u0130\u00df\u00e9\u2013\u2018\u201c\u2022\u2026\u3000\uff1a\u4e00\ue000"
ONE_CHARACTER = (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN)
REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT)
ENDLESS = 10_000
"""A repeat of this many or more counts as one without an end."""


@dataclass(frozen=True, slots=True)
class Cost:
    """``steps`` tried in one part of a pattern from one place, the ``ways`` in which it can end, the characters that it
    can begin with, whether it can take none (``empty``) and whether it cannot fail (``sure``)."""

    steps: float
    ways: float
    first: frozenset[str]
    empty: bool
    sure: bool


END = Cost(0, 1, frozenset(ALPHABET), True, True)
"""What follows a pattern: anything."""


def steps_from_one_place(pattern: re.Pattern[str]) -> float:
    """Characters that one attempt of ``pattern`` tries at most, a last repeat without an end counted once.

    What such a repeat takes belongs to the match, so a search goes over it once, however long it is.
    """
    tree = parser.parse(pattern.pattern, pattern.flags)
    return _sequence(list(tree), pattern.flags, END).steps


def _sequence(items: list[Any], flags: int, after: Cost) -> Cost:
    """The cost of ``items``; ``after`` is what follows them, whose own steps the caller counts."""
    rest, steps, ways, empty = after, 0.0, 1.0, True
    for item in reversed(items):
        one = _item(item, flags, rest)
        steps, ways = one.steps + (one.ways * steps if steps else 0.0), one.ways * ways
        first = one.first | rest.first if one.empty else one.first
        rest, empty = Cost(0, 1, first, one.empty and rest.empty, one.sure and rest.sure), empty and one.empty
    return Cost(steps, ways, rest.first, empty, rest.sure)


def _item(item: Any, flags: int, after: Cost) -> Cost:
    op, value = item
    if op in ONE_CHARACTER:
        return Cost(1, 1, _characters(item, flags), False, False)
    if op is sre.AT:
        return Cost(1, 1, frozenset(), True, False)
    if op is sre.GROUPREF:
        return Cost(50, 1, frozenset(ALPHABET), True, False)
    if op is sre.SUBPATTERN:
        return _sequence(list(value[3]), flags | value[1], after)
    if op in (sre.ASSERT, sre.ASSERT_NOT):
        inner = _sequence(list(value[1]), flags, END)
        # A repeat inside begins anew from every place, also where it comes last.
        return Cost(math.inf if _endless(list(value[1])) else inner.steps, 1, frozenset(), True, False)
    if op is sre.BRANCH:
        return _branch([_sequence(list(branch), flags, after) for branch in value[1]])
    if op in REPEATS:
        return _repeat(int(value[0]), int(value[1]), list(value[2]), flags, after)
    raise NotImplementedError(op)


def _branch(branches: list[Cost]) -> Cost:
    first = frozenset[str]().union(*(branch.first for branch in branches))
    # At one place only the branches that can begin with its character are tried further than that.
    tried = [[b for b in branches if b.empty or letter in b.first] for letter in sorted(first)] or [branches]
    return Cost(
        len(branches) + max(sum(b.steps for b in some) for some in tried),
        max(sum(b.ways for b in some) for some in tried),
        first,
        any(branch.empty for branch in branches),
        any(branch.sure for branch in branches),
    )


def _repeat(least: int, most: int, inner: list[Any], flags: int, after: Cost) -> Cost:
    first = _sequence(inner, flags, END).first
    last = _sequence(inner, flags, after)
    again = _sequence(inner, flags, Cost(0, 1, first, False, False)) if most > 1 else last  # followed by itself
    # Where no character of the body can begin what follows, only the longest run can be followed by it.
    stops = 1 if after.sure or not (first & after.first) else most - least + 1
    if most >= ENDLESS:
        free = after.sure and again.ways == last.ways == 1
        return Cost(last.steps if free else math.inf, 1 if free else math.inf, first, least == 0, least == 0)
    runs = again.ways ** (most - 1) if most else 1
    return Cost(most * runs * last.steps, stops * runs * last.ways, first, least == 0 or last.empty, least == 0)


def _endless(items: list[Any]) -> bool:
    for op, value in items:
        if op in REPEATS and (int(value[1]) >= ENDLESS or _endless(list(value[2]))):
            return True
        if any(_endless(list(inner)) for inner in _inside(op, value)):
            return True
    return False


def _inside(op: Any, value: Any) -> list[Any]:
    if op is sre.SUBPATTERN:
        return [value[3]]
    if op is sre.BRANCH:
        return list(value[1])
    return [value[1]] if op in (sre.ASSERT, sre.ASSERT_NOT) else []


SEEN: dict[str, Any] = {}


def _characters(item: Any, flags: int) -> frozenset[str]:
    """The characters of the alphabet that a node takes, by ``re`` itself."""
    key = repr(item)
    SEEN[key] = item
    return _taken(key, flags & (re.IGNORECASE | re.DOTALL | re.UNICODE | re.ASCII))


@cache
def _taken(key: str, flags: int) -> frozenset[str]:
    tree = parser.parse("", flags)
    tree.append(SEEN[key])
    one = compiler.compile(tree)
    return frozenset(letter for letter in ALPHABET if one.fullmatch(letter))
