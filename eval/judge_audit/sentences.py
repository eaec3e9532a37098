"""Split turns into sentences, and find questions, in any script."""

from __future__ import annotations

import re
from collections.abc import Sequence

QUESTION_SIGNS = "?？؟⁇⁈⸮՞፧꘏"
"""Of Latin and most other scripts, full width, Arabic, doubled, reversed, Armenian, Ethiopic and Vai."""

GREEK_QUESTION_SIGNS = ";\u037e"
"""A semicolon asks in Greek only."""

BREAK = re.compile(r"(?<=[.!?…؟۔।։።፧;\u037e])[\"'”’»)]?\s+|(?<=[。！？｡⁇])(?![。！？｡⁇”’」』）])\s*")
"""Between two sentences: blanks behind a sign that ends one, or only the sign where no blanks are written."""

UNSPACED_END = re.compile(r"[。！？｡⁇」』）]$")


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text``; one for a text without a sign that ends one."""
    parts: list[str] = []
    start = 0
    for found in BREAK.finditer(text):
        parts.append(text[start : found.end()].rstrip())
        start = found.end()
    return [part for part in (*parts, text[start:].strip()) if part]


def joined(parts: Sequence[str]) -> str:
    """Return sentences as one text, with blanks between them where their script writes them."""
    text = ""
    for part in parts:
        text += part if not text or UNSPACED_END.search(text) else f" {part}"
    return text


def is_question(sentence: str, language: str) -> bool:
    """Return whether ``sentence`` has a question mark. A question without one is not found. ``language``: ISO 639-1
    code."""
    signs = QUESTION_SIGNS + (GREEK_QUESTION_SIGNS if language == "el" else "")
    return any(sign in sentence for sign in signs)
