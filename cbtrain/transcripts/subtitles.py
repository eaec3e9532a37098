"""WebVTT and SubRip as labelled text: cue by cue, without numbers, times and tags."""

from __future__ import annotations

import re

SUFFIXES = (".vtt", ".srt")
CUE = re.compile(r"^[ \t]{0,8}(?:\d{1,3}:)?\d{1,3}:\d{2}[.,]\d{3}[ \t]{0,8}-->[^\n]{0,300}$", re.MULTILINE)
VOICE = re.compile(r"<v(?:\.[\w.-]{1,80})?[ \t]{1,8}([^<>\n]{1,80})>")
TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,100}>|<\d[^<>\n]{0,30}>|\{\\an?\d\}")


def text_of(content: str) -> str:
    """Return the words of all cues of ``content``, a line for each line of a cue; the voice of a cue (``<v Ann>``)
    becomes its label. A cue without a label continues the turn before it."""
    cues = []
    marks = list(CUE.finditer(content))
    for mark, end in zip(marks, [mark.start() for mark in marks[1:]] + [len(content)], strict=True):
        block = content[mark.end() : end].strip("\n")
        # A blank line ends a cue; what follows is the next one's number or name, or a note.
        block = re.split(r"\n[ \t]{0,80}\n", block, maxsplit=1)[0]
        lines = [TAG.sub("", VOICE.sub(r"\1: ", line)).strip() for line in block.split("\n")]
        cues += [line for line in lines if line]
    return "\n".join(cues)
