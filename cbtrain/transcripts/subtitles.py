"""WebVTT and SubRip as labelled text: cue by cue, without numbers, times and tags."""

from __future__ import annotations

import html
import re

SUFFIXES = (".vtt", ".srt")
CUE = re.compile(r"^[ \t]{0,8}(?:\d{1,3}:)?\d{1,3}:\d{2}[.,]\d{1,3}[ \t]{0,8}-->[^\n]{0,300}$", re.MULTILINE)
VOICE = re.compile(r"<v(?:\.[\w.-]{1,80})?[ \t]{1,8}([^<>\n]{1,80})>")
TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,100}>|<\d[^<>\n]{0,30}>|\{\\an?\d\}")


NOTES = ("NOTE", "STYLE", "REGION")
BLANK_LINE = re.compile(r"\n[ \t]{0,80}(?=\n)")


def text_of(content: str) -> str:
    """Return the words of all cues of ``content``, a line for each line of a cue; the voice of a cue (``<v Ann>``)
    becomes its label. A cue without a label continues the turn before it."""
    lines: list[str] = []
    marks = list(CUE.finditer(content))
    for number, mark in enumerate(marks, 1):
        end = marks[number].start() if number < len(marks) else len(content)
        for line in _cue_lines(content[mark.end() : end], last=number == len(marks)):
            lines += TAG.sub("", VOICE.sub(r"\n\1: ", line)).split("\n")
    return "\n".join(html.unescape(line).strip() for line in lines if line.strip())


def _cue_lines(block: str, *, last: bool) -> list[str]:
    """Return the lines of one cue from what stands before the next: without notes, and without the next one's number or
    name."""
    paragraphs = [part.strip("\n").split("\n") for part in BLANK_LINE.split(block) if part.strip()]
    if not last and paragraphs:
        final = paragraphs[-1]
        if len(paragraphs) > 1 and len(final) == 1:
            paragraphs.pop()
        elif final[-1].strip().isdecimal():
            final.pop()
    return [line for lines in paragraphs if not lines or not lines[0].startswith(NOTES) for line in lines]
