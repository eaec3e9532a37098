"""The summary that closes a session, and the one that a patient pastes at the start of the next.

In the 2024 study's protocol the summary is the only memory between sessions: the therapist writes it last, and the
patient's first turn of the next session brings it along.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cbtrain.transcripts.types import Session, Turn

LABEL = re.compile(
    r"(?:session summary|summary of (?:this |today's )?session(?: \d{1,4})?)\*{0,3}(?::|[ \t]{0,20}$)", re.I | re.M
)
SENTENCE_END = (".", "!", "?", "…", '"', "”", ")")
FIRST_PERSON = re.compile(r"\b(?:I|I'm|I'll|I've|me|my)\b")
WORDS = re.compile(r"\w+")
# Some generators put all bullets on one line.
LINES = re.compile(r"\n|\s[-•*]\s")
LONG_PIECES = re.compile(r"(?:(?!\n|\s[-•*]\s)[\s\S])+")
LONG_LINE = 40
"""Characters from which a line of a summary says enough to be recognized."""


def opening_turn(turns: Sequence[Turn]) -> int | None:
    """Return the index of the patient's first turn, where last time's summary may be pasted; None without one."""
    return next((index for index, turn in enumerate(turns) if turn.role == "patient"), None)


def summary_labels(text: str) -> Iterator[tuple[int, bool]]:
    """Yield where each summary's label begins, and whether it begins a line; else it stands right after a sentence,
    where a generator forgot the line break, and ends with a colon."""
    for match in LABEL.finditer(text):
        before = text[max(0, match.start() - 40) : match.start()]
        line = before[before.rfind("\n") + 1 :]
        if not line.strip(" \t#*("):
            yield match.start() - len(line), True
        elif line != line.rstrip() and line.rstrip().endswith(SENTENCE_END) and match.group().endswith(":"):
            yield match.start(), False


def closing_summaries(turns: Sequence[Turn]) -> list[tuple[int, int]]:
    """Return each label of a closing summary: index of the turn, and place in its text.

    What stands in the patient's opening turn is last time's summary. In other turns of the patient only a label that
    begins a line in the second half of the session closes it; elsewhere it is the patient who speaks.
    """
    opening, starts = opening_turn(turns), []
    for index, turn in enumerate(turns):
        if index == opening or ("ummary" not in turn.text and "UMMARY" not in turn.text):
            continue
        for start, begins_line in summary_labels(turn.text):
            if turn.role == "therapist" or (begins_line and 2 * index >= len(turns)):
                starts.append((index, start))
    return starts


def summary_end(text: str, start: int) -> int:
    """Return where the summary that begins at ``start`` ends: before a last paragraph that speaks as ``I`` to somebody,
    as a patient does who says goodbye after it."""
    end = len(text)
    while (cut := text.rfind("\n\n", start, end)) > start and _spoken(text[cut:end]):
        end = cut
    return end


def _spoken(paragraph: str) -> bool:
    """Whether somebody speaks of themselves, not in a list, a heading or a number's line."""
    paragraph = paragraph.lstrip()
    listed = paragraph.startswith(("-", "•", "*", "#")) or paragraph[:1].isdecimal()
    return not listed and FIRST_PERSON.search(paragraph) is not None


def summary_text(session: Session) -> str:
    """Return the session's summary: what its source keeps beside the dialogue, else the last one in it; may be
    empty."""
    if "summary" in session.facts:
        return session.facts["summary"]
    starts = closing_summaries(session.turns)
    if not starts:
        return ""
    index, start = starts[-1]
    return session.turns[index].text[start:]


def long_lines(text: str) -> frozenset[int]:
    """Hashes of the lines and bullets that say enough to be recognized, without bullets, spaces and capitals."""
    bare = (_bare(line) for line in LINES.split(text) if len(line) >= LONG_LINE)
    return frozenset(hash(line) for line in bare if len(line) >= LONG_LINE)


def _bare(line: str) -> str:
    return " ".join(WORDS.findall(line)).lower()


def pasted_summary(text: str, last_summary: str = "") -> tuple[int, int] | None:
    """Return where last session's summary stands in a patient's opening turn, or None.

    It is found by its own lines where ``last_summary`` is known (half of them must be there), else by its label.
    """
    label = next((start for start, _ in summary_labels(text)), None)
    wanted = long_lines(last_summary)
    spans = [
        (line.start(), line.end())
        for line in LONG_PIECES.finditer(text)
        if len(bare := _bare(line.group())) >= LONG_LINE and hash(bare) in wanted
    ]
    if spans and 2 * len({hash(_bare(text[start:end])) for start, end in spans}) >= len(wanted):
        start = spans[0][0] if label is None else min(label, spans[0][0])
        return start, max(end for _, end in spans)
    return None if label is None else (label, summary_end(text, label))
