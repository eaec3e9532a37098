"""Which sessions can be rated at all: those in which both speakers say something."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cbtrain.transcripts.labels import NAME_THE_LABELS
from cbtrain.transcripts.types import Role, Turn

RESIDUE = re.compile(
    r"<\|[^|>]{0,80}\|>|<｜[^｜>]{0,80}｜>|</?(?:start|end)_of_turn>|<</?SYS>>|\[/?INST\]|\[END\]|</?s>"
)
"""Template and end marks, which would tell the judge what kind of speaker it reads. Put a blank in their place: what
stood around one must not become another."""


def without_marks(text: str) -> str:
    """Return ``text`` without the marks of :data:`RESIDUE`."""
    return RESIDUE.sub(" ", text).strip()


WORD = re.compile(r"[^\W_]")


def why_unratable(turns: Sequence[Turn], labels_seen: str = "") -> str:
    """Return why ``turns`` cannot be rated; an empty text if both speakers say at least one word. Other sessions are
    never sent to a judge. ``labels_seen`` are labels in the text that were not read."""
    spoken = {turn.role for turn in turns if WORD.search(RESIDUE.sub("", turn.text))}
    if len(spoken) == 2:
        return ""
    read = f"; labels in the text that were not read: {labels_seen}; {NAME_THE_LABELS}" if labels_seen else ""
    if not turns:
        return f"no speaker was found in it{read or '; ' + NAME_THE_LABELS}"
    missing: tuple[Role, ...] = ("therapist", "patient")
    silent = [role for role in missing if role not in spoken]
    return f"no word of the {' or the '.join(silent)}{read}"
