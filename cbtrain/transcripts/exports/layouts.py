"""Layouts of transcripts in plain text that Zoom, Teams, Otter, Google Meet and chats write, made labelled lines.

In these layouts the line itself shows who speaks, so every name is a speaker's, known or not:

- Zoom's captions: ``[Dr Lee] 10:15:03``, then the words; its chat: ``10:15:03 From Dr Lee to Everyone:``
- Otter, Teams: ``Dr Lee  0:05`` alone on a line, then the words
- Teams, older: ``0:0:0.0 --> 0:0:5.120``, then the name, then the words
- chats: ``10:15 AM Dr Lee: …``, ``[12/05/2024, 10:15:03] Dr Lee: …``

Google Meet and Otter list the speakers above the dialogue. Numbers before known labels (``1. Therapist:``) are no
words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from itertools import islice

from cbtrain.transcripts.label_grammar import BLANK, STAMP

TIME_MARK = "\x1e"
"""Begins a line that holds nothing but the time at which the next turn begins."""

NAME = r"[^\W\d_][^\n\t:：\[\]<>]{0,48}?"
CLOCK = r"\d{1,2}:\d{2}(?::\d{2})?(?: ?[AaPp]\.?[Mm]\.?(?![A-Za-z]))?"
DATE = r"(?:\d{1,4}[/.-]\d{1,2}[/.-]\d{1,4},? )?"

CAPTION = re.compile(
    rf"^\[(?P<name>[^\n\[\]]{{1,60}})\]{BLANK}{{1,4}}(?P<time>\d{{1,2}}:\d{{2}}:\d{{2}}){BLANK}{{0,4}}$\n?",
    re.MULTILINE,
)
CHAT = re.compile(
    rf"^(?P<time>\d{{1,2}}:\d{{2}}:\d{{2}}){BLANK}{{1,4}}From{BLANK}{{1,4}}(?P<name>[^\n:]{{1,160}}):[ \t\n]{{0,4}}",
    re.MULTILINE,
)
HEADED = re.compile(
    rf"^{BLANK}{{0,4}}(?P<name>{NAME}){BLANK}{{2,8}}[\[(]?(?P<time>{STAMP})[\])]?{BLANK}{{0,4}}$\n?", re.MULTILINE
)
RANGED = re.compile(
    rf"^{BLANK}{{0,4}}(?P<time>\d:\d{{1,2}}:\d{{1,2}}\.\d{{1,7}}) ?--> ?[\d:.]{{5,20}}{BLANK}{{0,4}}\n{{1,3}}"
    r"(?P<name>[^\n:]{1,60})\n",
    re.MULTILINE,
)
TIMED = re.compile(
    rf"^{BLANK}{{0,8}}[\[(]?{DATE}(?P<time>{CLOCK})[\])]?{BLANK}{{0,4}}[-–—]?{BLANK}{{0,4}}"
    rf"(?P<name>{NAME}){BLANK}?[:：](?!\d|//){BLANK}{{0,4}}",
    re.MULTILINE,
)
LAYOUTS = {
    "Zoom captions": CAPTION,
    "a Zoom chat": CHAT,
    "names and times alone on a line (Otter, Teams)": HEADED,
    "a time, a name and words on lines of their own (Teams)": RANGED,
    "a time and a name before the words": TIMED,
}
"""Each layout by what it is called in messages."""

HEADINGS = ("Attendees", "Invited", "SPEAKERS", "Speakers")
LISTED = re.compile(rf"^(?:{'|'.join(HEADINGS)}){BLANK}{{0,4}}\n{{1,3}}(?P<names>[^\n]{{1,600}})$", re.MULTILINE)
COUNTED = re.compile(
    rf"^{BLANK}{{0,8}}\d{{1,4}}[.)]?{BLANK}{{1,4}}(?=(?P<name>[^\W\d_][^\n:：]{{0,40}})[:：])", re.MULTILINE
)
NO_WORDS = re.compile(
    rf"^[ \t*_#]{{0,8}}(?:Transcribed by https?://otter\.ai|"
    r"(?:Meeting|Transcription) ended after \d{1,2}:\d{2}:\d{2}[^\n]{0,8}|"
    r"This editable transcript was computer generated[^\n]{0,200}|"
    rf"[^\n]{{1,60}} (?:started|stopped) transcription){BLANK}{{0,4}}[*_]{{0,3}}$\n?",
    re.MULTILINE,
)
"""What the services add to the words."""

A_TIME = re.compile(r":(?<=\d:)\d")
"""Begins with the colon, which is found much faster than a digit."""

TO = re.compile(r"[ \t]{1,4}to[ \t]{1,4}")
ASIDE_AT_END = re.compile(r"[ \t]{0,4}[(（][^()（）]{0,60}[)）]$")
NUMBER_AT_END = re.compile(r"[ #]?\d{1,4}$|[ #][A-D]$")
TITLE = re.compile(r"^(?:dr|mr|mrs|ms|mx|prof)\.? ")
LISTING = 6000
"""Characters at the beginning of a text in which speakers may be listed."""


@dataclass(slots=True)
class Export:
    """A labelled ``text``. ``speakers`` counts the turns of everybody whom the layout itself names; ``layout`` is what
    it is called in messages; ``cues`` counts those of subtitles."""

    text: str
    layout: str = "a text"
    speakers: Counter[str] = field(default_factory=Counter)
    cues: int = 0


def without_additions(text: str, is_known: Callable[[str], bool]) -> str:
    """Return ``text`` without what the services add, and without numbers before labels; ``is_known`` says whether a
    name is one."""
    if "ranscri" in text or "ended after" in text:
        text = NO_WORDS.sub("", text)
    if not any(line.lstrip()[:1].isdigit() for line in text.split("\n")):
        return text
    return COUNTED.sub(lambda match: "" if is_known(match["name"]) else match.group(), text)


def unified(text: str) -> Export:
    """Return ``text`` with a line of its time (:data:`TIME_MARK`) and a label before each turn, if it is in one of
    :data:`LAYOUTS`; else as it is, with the speakers that are listed above it."""
    for layout, pattern in LAYOUTS.items() if A_TIME.search(text) else ():
        if sum(1 for _ in islice(pattern.finditer(text), 2)) == 2:
            return _with_labels(text, layout, pattern)
    return Export(text, speakers=_listed_speakers(text))


def _with_labels(text: str, layout: str, pattern: re.Pattern[str]) -> Export:
    speakers: Counter[str] = Counter()

    def labelled(match: re.Match[str]) -> str:
        name = ASIDE_AT_END.sub("", TO.split(match["name"])[0].strip())
        speakers[name] += 1
        return f"{time_line(match['time'])}{name}: "

    return Export(pattern.sub(labelled, text), layout, speakers)


def time_line(time: str) -> str:
    """Return the line that says when the next turn begins."""
    return f"{TIME_MARK}{'_'.join(time.split())}\n"


def _listed_speakers(text: str) -> Counter[str]:
    """Return those of the speakers listed above a dialogue whose names are labels in it, with their turns."""
    speakers: Counter[str] = Counter()
    beginning = text[:LISTING]
    if not any(heading in beginning for heading in HEADINGS):
        return speakers
    for match in LISTED.finditer(beginning):
        for name in match["names"].split(","):
            name = name.strip()
            if name and (count := text.count(f"\n{name}:")):
                speakers[name] = count
    return speakers


def is_label(name: str, labels: Container[str]) -> bool:
    """Return whether ``name`` is one of ``labels`` (in lower case), perhaps with a title, a number or an aside."""
    name = ASIDE_AT_END.sub("", name.strip().lower())
    untitled = TITLE.sub("", name)
    return any(form in labels for whole in (name, untitled) for form in (whole, NUMBER_AT_END.sub("", whole).rstrip()))
