"""Remove keys from texts of other origin."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

STAND_INS = frozenset("dummy empty key local no-key none not-needed sk-no-key-required test token unused x xxx".split())
"""Values that users set as a key for a server that needs none."""

SHORTEST, LONGEST_WORD = 4, 12
"""Fewest characters of a key that is removed from texts, and of one that is a plain word or number: shorter ones may
occur in any text."""

ESCAPES = 8
"""Backslashes before a letter that are looked through; without a bound a long run of them would take for ever."""


def is_secret(key: str) -> bool:
    """Return False for a placeholder, a word or a number: removing it would change what patients say."""
    word = (key.isalpha() or key.isdigit()) and len(key) < LONGEST_WORD
    return len(key) >= SHORTEST and not word and key.lower() not in STAND_INS


def redacted(text: str, keys: Collection[str]) -> str:
    """Return ``text`` without ``keys``, in whatever way they are written: as they are, or with letters escaped as JSON
    and addresses have them; JSON inside JSON too."""
    for key in filter(is_secret, keys):
        if _may_hold(text, key):
            text = _written(key).sub("[key]", text)
    return text


def redacted_texts(value: Any, keys: Collection[str]) -> Any:
    """Return the JSON ``value`` with ``keys`` removed from all its texts."""
    if isinstance(value, str):
        return redacted(value, keys)
    if isinstance(value, dict):
        return {redacted(name, keys): redacted_texts(inner, keys) for name, inner in value.items()}
    if isinstance(value, list):
        return [redacted_texts(inner, keys) for inner in value]
    return value


def _may_hold(text: str, key: str) -> bool:
    """A quick look, fifty times as fast as the pattern: letters as numbers, or the key but for backslashes."""
    numbered = "\\u00" in text or "%" in text
    return numbered or key.replace("\\", "").lower() in text.replace("\\", "").lower()


@lru_cache(maxsize=64)
def _written(key: str) -> re.Pattern[str]:
    letters = (rf"\\{{0,{ESCAPES}}}(?:{re.escape(letter)}|u{ord(letter):04x}|%{ord(letter):02x})" for letter in key)
    return re.compile("".join(letters), re.IGNORECASE)
