"""How a speaker's label looks at the start of a line: the one grammar of readers, check and cleaning.

A line may begin with blanks, a dash, a time or a range of times; then comes the label, perhaps bold, in brackets, with
a number (``Client 2``) and an aside (``Patient (crying)``); then a colon, ASCII or full width. After a label in square
brackets the colon may be missing. Repeats are bounded, so that a pattern tries few characters from each place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

BLANK = r"[ \t\u00a0\u3000]"
INDENT, BOLD, COLON = rf"{BLANK}{{0,80}}", r"[*_]{0,3}", "[:：]"
OTHER_ENDS = r"(?:\t|(?<=[ \t])[-–—](?=[ \t]))"
"""What ends labels in texts without colons: a tab, or a dash between blanks."""

STAMP = r"(?:\d{1,2}(?::\d{2}){1,2}(?:[.,]\d{3})?|\d{1,5}(?:\.\d{1,2})?s)"
TIME = rf"(?:[\[(<]?{STAMP}(?: ?(?:-->|-|–) ?{STAMP})?[\])>]?{BLANK}{{0,8}})?"
DASH = rf"(?:[-–—•>]{BLANK}?)?"
NUMBER = r"(?:[ #]?(?P<number>\d{1,3}|[A-D](?![A-Za-z])))?"
ASIDE = rf"{BLANK}?[(（\[][^()（）\[\]\n]{{1,60}}[)）\]]"
OF = r"(?P<of>['’]s [A-Za-z]{2,12})"
"""Somebody whom a label names by another (``Patient's mother``)."""

BEGIN = rf"^{INDENT}{DASH}{TIME}"
TITLE = r"(?:(?:Dr|Mr|Mrs|Ms|Mx|Prof)\.? )?"


@lru_cache(maxsize=64)
def line_pattern(labels: tuple[str, ...], *, separator: str = COLON) -> re.Pattern[str]:
    """Return the pattern of one of ``labels`` at the start of a line, in any case; ``separator`` ends a label. Groups:
    ``label``, ``bracketed`` or ``stamped``, and ``number`` or ``number_there``."""
    # "[Client]:", "**Client** (sighs):", "**Client (sighs)**:"
    after = rf"(?:{OF}|{NUMBER}(?P<close>\]?){BOLD}(?:{ASIDE}{BOLD})?)"
    colon = rf"(?P<open>\[?){BOLD}{TITLE}(?P<label>{either(labels)}){after}{BLANK}{{0,8}}{separator}{BOLD}"
    bracketed = rf"\[{BLANK}?(?P<bracketed>{either(labels)})(?P<number_there>[ #]?\d{{1,4}})?{BLANK}?\](?!{COLON})"
    stamped = rf"{TITLE}(?P<stamped>{either(labels)}){BLANK}{{1,8}}[\[(]?{STAMP}[\])]?{BLANK}{{0,4}}$"
    return re.compile(rf"{BEGIN}(?:{colon}|{bracketed}|{stamped})", re.MULTILINE | re.IGNORECASE)


CAPITALS = re.compile(
    rf"{BEGIN}{BOLD}(?i:{TITLE})(?P<label>[A-Z][A-Z.'’ -]{{1,24}}[A-Z])(?: ?(?P<number>\d{{1,3}}))?{BOLD}{COLON}{BOLD}",
    re.MULTILINE,
)
"""Any label in capitals."""


def either(labels: Iterable[str]) -> str:
    """Return the alternatives of ``labels``, the longest first: ``Patient's mother`` is not read as ``Patient``."""
    return "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
