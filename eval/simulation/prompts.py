"""System prompts of therapists: shipped ones by name, and text files."""

from __future__ import annotations

import importlib.resources
from functools import cache
from pathlib import Path

import yaml

from cbtrain.errors import UserError, nearest
from cbtrain.files import exists, expanded

LONGEST = 200_000
"""Characters of a prompt's file."""


@cache
def shipped_prompts() -> dict[str, str]:
    """Return the texts of the shipped system prompts, by name."""
    folder = importlib.resources.files("cbtrain.configs") / "prompts"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text(encoding="utf-8"))["text"] for file in files}


def prompt_text(word: str, others: tuple[str, ...] = ()) -> str:
    """Return the shipped prompt called ``word``, or the text of the file of that name. ``others`` are words that mean
    something here, for the hint. Raises UserError if it is neither, or no text."""
    shipped = shipped_prompts()
    if word in shipped:
        return shipped[word]
    if not exists(word):
        hint = f"{nearest(word, [*shipped, *others])} A text file can be named, too."
        raise UserError(f"no prompt {word!r}", hint=hint)
    path = Path(expanded(word))
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise UserError(f"cannot be read ({reason})", where=path, hint="Name a text file.") from None
    if not text or len(text) > LONGEST:
        problem = "is empty" if not text else f"has {len(text):,} characters, more than {LONGEST:,}"
        raise UserError(problem, where=path, hint="Name a text file with a system prompt, or `none`.")
    return text
