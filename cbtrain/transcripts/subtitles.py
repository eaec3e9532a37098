"""WebVTT, SubRip and SBV as labelled text: cue by cue, without numbers, names and tags, each with its time."""

from __future__ import annotations

import html
import re
from collections import Counter

from cbtrain.transcripts.exports.layouts import ASIDE_AT_END, NAME, Export, time_line

SUFFIXES = (".vtt", ".srt", ".sbv")
CUE = re.compile(
    r"^[ \t]{0,8}(?P<start>(?:\d{1,3}:)?\d{1,3}:\d{2}[.,]\d{1,3})(?:[ \t]{0,8}-->|,(?=\d{1,3}:\d\d))[^\n]{0,300}$",
    re.MULTILINE,
)
VOICE = re.compile(r"<v(?:\.[\w.-]{1,80})?[ \t]{1,8}([^<>\n]{1,80})>")
TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,100}>|<\d[^<>\n]{0,30}>|\{\\an?\d\}")
SPOKEN = re.compile(rf"\[?(?P<name>{NAME})\]?[ \t]?[:：](?!\d|//)")
"""The name before the words of a cue, as Zoom (``Dr Lee:``) and WhisperX (``[SPEAKER_00]:``) write it."""

MOST_CUES = 0.8
"""Share of cues that begin with a name, from which every name at the beginning of a cue is a speaker's."""

NOTES = ("NOTE", "STYLE", "REGION")
BLANK_LINE = re.compile(r"\n[ \t]{0,80}(?=\n)")
CUE_NAME = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:/\d{1,6}-\d{1,6})?", re.IGNORECASE)
"""A cue's name as Teams writes it."""


def export_of(content: str) -> Export:
    """Return all cues of ``content`` as labelled text, a line for each line of a cue; the voice of a cue (``<v Ann>``)
    becomes its label. A cue without a label continues the turn before it. ``speakers`` are the voices, and the names at
    the beginning of the cues if nearly all begin with one."""
    lines: list[str] = []
    voices, spoken = Counter[str](), Counter[str]()
    marks = list(CUE.finditer(content))
    above = content[: marks[0].start()].rpartition("\n")[0].rpartition("\n")[2].strip() if marks else ""
    named = bool(above) and not above.startswith("WEBVTT")
    for number, mark in enumerate(marks, 1):
        end = marks[number].start() if number < len(marks) else len(content)
        block = content[mark.end() : end]
        words: list[str] = []
        for line in _cue_lines(block, named=named and number < len(marks)):
            voices.update(html.unescape(name).strip() for name in VOICE.findall(line))
            words += TAG.sub("", VOICE.sub(r"\n\1: ", line)).split("\n")
        words = [html.unescape(line).strip() for line in words if line.strip()]
        if words:
            lines += [time_line(mark["start"]).rstrip(), *words]
            if begins := SPOKEN.match(words[0]):
                spoken[ASIDE_AT_END.sub("", begins["name"].strip())] += 1
    speakers = voices or (spoken if spoken.total() >= MOST_CUES * len(marks) else Counter())
    kind = "WebVTT" if content.lstrip().startswith("WEBVTT") else "subtitles"
    return Export("\n".join(lines), f"{kind} of {len(marks):,} cues", speakers, len(marks))


def _cue_lines(block: str, *, named: bool) -> list[str]:
    """Return the lines of one cue from what stands before the next: without notes, and without the next one's number or
    name, if the file's cues are ``named``."""
    paragraphs = [part.strip("\n").split("\n") for part in BLANK_LINE.split(block) if part.strip()]
    if named and paragraphs:
        final = paragraphs[-1]
        if len(paragraphs) > 1 and len(final) == 1:
            paragraphs.pop()
        elif final[-1].strip().isdecimal() or CUE_NAME.fullmatch(final[-1].strip()):
            final.pop()
    return [line for lines in paragraphs if not lines or not lines[0].startswith(NOTES) for line in lines]
