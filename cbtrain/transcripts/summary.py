"""The summary that closes a session, and the one that a patient pastes at the start of the next.

In the 2024 study's protocol the summary is the only memory between sessions: the therapist writes it last, and the
patient's first turn of the next session brings it along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cbtrain.transcripts.types import Session, Turn

# At the start of a line, or right after a sentence where the generator forgot the line break.
SUMMARY = re.compile(r"(?:^[ \t]*[#*]*[ \t]*|(?<=[.!?…\"”)])[ \t]+)Session Summary\**:", re.MULTILINE)
WORDS = re.compile(r"\w+")
# Some generators put all bullets on one line.
LINES = re.compile(r"\n|\s[-•*]\s")
LONG_LINE = 40
"""Characters from which a line of a summary says enough to be recognized."""


def opening_turn(turns: Sequence[Turn]) -> int | None:
    """The index of the patient's first turn, where last time's summary may be pasted; None without one."""
    return next((index for index, turn in enumerate(turns) if turn.role == "patient"), None)


def closing_summaries(turns: Sequence[Turn]) -> list[tuple[int, int]]:
    """Each summary label that is not in the patient's opening turn: index of the turn, and place in its text."""
    opening = opening_turn(turns)
    return [
        (index, found.start())
        for index, turn in enumerate(turns)
        if index != opening and "Session Summary" in turn.text
        for found in SUMMARY.finditer(turn.text)
    ]


def summary_text(session: Session) -> str:
    """The session's summary: what its source keeps beside the dialogue, else the last one in it; may be empty."""
    if "summary" in session.facts:
        return session.facts["summary"]
    found = closing_summaries(session.turns)
    if not found:
        return ""
    index, start = found[-1]
    return session.turns[index].text[start:]


def long_lines(text: str) -> frozenset[int]:
    """Hashes of the lines and bullets that say enough to be recognized, without bullets, spaces and capitals."""
    bare = (_bare(line) for line in LINES.split(text) if len(line) >= LONG_LINE)
    return frozenset(hash(line) for line in bare if len(line) >= LONG_LINE)


def _bare(line: str) -> str:
    return " ".join(WORDS.findall(line)).lower()
