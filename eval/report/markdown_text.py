"""Text for Markdown: nothing in it is read as markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def escape(text: str) -> str:
    """Return ``text`` on one line, with nothing in it that Markdown or HTML would read as markup."""
    flat = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", flat)
    # What would be a list or a link at the beginning of a line or by itself.
    flat = re.sub(r"^(\d*)([-+.])(?=\s)", r"\1\\\2", flat)
    return re.sub(r"(?i)\b(https?|ftp|www|mailto)(?=[:.])", lambda match: f"{match[0]}&#8203;", flat).replace(
        "@", "&#64;"
    )


def table_text(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table with its first column to the left, and numbers to the right."""
    rule = [":--", *["--:"] * (len(head) - 1)]
    drawn = [f"| {' | '.join(escape(cell) or ' ' for cell in line)} |" for line in (head, *lines)]
    return "\n".join([drawn[0], f"| {' | '.join(rule)} |", *drawn[1:]])
