"""Parse a text in which each turn begins with a label; no turn of a third speaker becomes anybody else's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from cbtrain.transcripts.exports.layouts import TIME_MARK, is_label, unified, without_additions
from cbtrain.transcripts.label_grammar import BLANK, CAPITALS, COLON, OTHER_ENDS, STAMP, line_pattern
from cbtrain.transcripts.types import Role, Turn

THIRD = tuple(
    "mother father mom mum mommy dad daddy parent parents wife husband spouse partner girlfriend boyfriend son "
    "daughter brother sister sibling grandmother grandfather teacher interviewer moderator facilitator observer "
    "narrator supervisor nurse interpreter translator speaker participant unknown unidentified "
    "妈妈 爸爸 母亲 父亲 丈夫 妻子 儿子 女儿 旁白".split()
)
"""Whoever else speaks in sessions, as transcripts label them."""

WORKSHEET = frozenset(
    "situation situations thought thoughts feeling feelings emotion emotions evidence behavior behaviour behaviors "
    "behaviours belief beliefs alternative outcome note notes goal goals homework agenda summary trigger triggers "
    "action actions result results event example question answer pros cons self world future others step".split()
)
"""Words before a colon in capitals that are headings of what a therapist writes down, not speakers."""


LONG_TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,3})?|[.,]\d{3})"
TIME_ALONE = re.compile(
    rf"^(?:{TIME_MARK}(?P<marked>[^\n]{{1,60}})|{BLANK}{{0,4}}[\[(]?(?P<written>{LONG_TIME})"
    rf"(?: ?(?:-->|-|–) ?{LONG_TIME})?[\])]?{BLANK}{{0,4}})$\n?",
    re.MULTILINE,
)
"""A time alone on a line, which nobody says. ``7:30`` alone may be an answer."""

ANY_TIME = re.compile(STAMP)
GROUPS = ("label", "bracketed", "stamped", "number", "number_there", "of")
"""Groups of :func:`line_pattern`."""

NO_TIME = "-"


@dataclass(slots=True)
class LabelledText:
    """``preamble``: what stands before the first label. ``ignored`` counts turns of third speakers, by label; ``empty``
    turns without words. Both are left out of ``turns``. ``times``: when each turn begins, as written, or empty."""

    preamble: str = ""
    turns: list[Turn] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    empty: int = 0

    @property
    def is_dialogue(self) -> bool:
        """Whether both speakers say something."""
        return {turn.role for turn in self.turns} == {"patient", "therapist"}

    @property
    def facts(self) -> dict[str, str]:
        """Return the fact ``times``, if any turn has one."""
        return facts_of_times(self.times)


def facts_of_times(times: Sequence[str]) -> dict[str, str]:
    """Return the fact ``times``: when each turn begins, in the order of the turns, ``-`` for one that does not say so.
    Nothing if none does."""
    return {"times": " ".join(time or NO_TIME for time in times)} if any(times) else {}


class _Label(NamedTuple):
    """A label at ``[start, end)``: the speaker's name in lower case, its number (``2`` of ``Client 2``), as written."""

    start: int
    end: int
    name: str
    number: str
    written: str


def parse_text(
    text: str, labels: Mapping[str, Role], ignore: Sequence[str] = (), speakers: Sequence[str] = ()
) -> LabelledText:
    """Return the turns of ``text``; ``labels`` say who is who, speakers in ``ignore`` are left out, and so are those of
    ``speakers`` (whom the source names beside the text) that no label means.

    A label with a number or letter (``Client 2``) is another speaker than the one with the lowest; only if both
    speakers' numbers rise through the whole text do they count turns. Words after a label of a third speaker (a common
    one such as ``Mother``, ``Client's wife``; in a text whose labels are in capitals, any in capitals; in a layout of
    :mod:`~cbtrain.transcripts.exports.layouts`, anybody whom it names) are nobody's: they are counted in ``ignored``.
    If colons give no turn at all, labels may end in a tab or a dash.
    """
    roles: dict[str, Role | None] = dict.fromkeys(THIRD, None)
    roles |= {label.lower(): role for label, role in labels.items()}
    roles |= dict.fromkeys((name.lower() for name in ignore if name), None)
    known = {name for name, role in roles.items() if role}
    text = without_additions(text, lambda name: is_label(name, roles))
    export = unified(text)
    if speakers or any(is_label(name, known) for name in export.speakers):
        return _parse(export.text, roles, [*speakers, *export.speakers], COLON)
    parsed = _parse(text, roles, (), COLON)
    if not parsed.turns and export.speakers:  # a layout whose speakers nobody knows
        return _parse(export.text, roles, list(export.speakers), COLON)
    if not parsed.turns:
        other = _parse(text, roles, (), OTHER_ENDS)
        parsed = other if other.is_dialogue else parsed
    return parsed


def _parse(text: str, roles: Mapping[str, Role | None], speakers: Sequence[str], separator: str) -> LabelledText:
    named = {name.lower() for name in speakers if not is_label(name, roles)}
    roles = {**dict.fromkeys(named, None), **roles}
    marks = _marks(text, roles, {*named, *(name.lower() for name in speakers)}, separator)
    if not marks:
        return LabelledText(preamble=TIME_ALONE.sub("", text).strip())
    first_number = {} if _numbers_count_turns(marks, roles) else _first_numbers(marks)
    preamble, time = _without_times(text[: marks[0].start])
    parsed = LabelledText(preamble=preamble)
    for mark, end in zip(marks, [mark.start for mark in marks[1:]] + [len(text)], strict=True):
        words, next_time = _without_times(text[mark.end : end])
        role = roles.get(mark.name)
        if role is None or mark.number != first_number.get(mark.name, mark.number):
            parsed.ignored[mark.written] += 1
        elif words:
            parsed.turns.append(Turn(role, words))
            parsed.times.append(_time_in(text, mark) or time)
        else:
            parsed.empty += 1
        time = next_time
    return parsed


def _without_times(text: str) -> tuple[str, str]:
    """Return ``text`` without lines that hold only a time, stripped, and the time in its last line: that of the turn
    after it."""
    if ":" not in text:
        return text.strip(), ""
    time = ""
    for match in TIME_ALONE.finditer(text):
        time = "" if text[match.end() :].strip() else match["marked"] or match["written"]
    return TIME_ALONE.sub("", text).strip(), time


def _time_in(text: str, mark: _Label) -> str:
    """Return the time that stands before or after a speaker's name."""
    if mark.end - mark.start <= len(mark.name) + 2:  # the name and a colon
        return ""
    match = ANY_TIME.search(text, mark.start, mark.end)
    return match.group() if match else ""


def _marks(text: str, roles: Mapping[str, Role | None], speakers: Container[str], separator: str) -> list[_Label]:
    """Return the labels in ``text`` in their order: those of ``roles``, and in a text whose labels are in capitals
    others in capitals. A name of ``speakers`` (in lower case) may be in lower case."""
    pattern = line_pattern(tuple(sorted(roles)), separator=separator)
    pairs = [(match, _label(match)) for match in pattern.finditer(text) if _is_closed(match)]
    if any(mark.written[0].isupper() for _, mark in pairs):
        pairs = [(match, mark) for match, mark in pairs if mark.name in speakers or not _is_prose(match, mark)]
    marks = [mark for _, mark in pairs]
    of_speakers = [mark for mark in marks if roles.get(mark.name)]
    others: list[_Label] = []
    if len(of_speakers) > 1 and all(mark.written.isupper() and len(mark.name) > 1 for mark in of_speakers):
        others = [
            _label_in_capitals(match) for match in CAPITALS.finditer(text) if match["label"].lower() not in WORKSHEET
        ]
    by_place = {mark.start: mark for mark in (*others, *marks)}
    return [by_place[start] for start in sorted(by_place)]


def _is_closed(match: re.Match[str]) -> bool:
    """Return whether a label in a bracket ends with it: ``[Client: crying]`` is an aside, not a label."""
    return bool(match["open"]) == bool(match["close"])


def _is_prose(match: re.Match[str], mark: _Label) -> bool:
    """Return whether a line begins with a role in lower case, as in the middle of a sentence that was wrapped."""
    return mark.written[0].islower() and match.group().strip().startswith(mark.written[:1])


def _label(match: re.Match[str]) -> _Label:
    label, bracketed, stamped, number, number_there, other = match.group(*GROUPS)
    name = f"{label or bracketed or stamped or ''}{other or ''}"
    number = (number or number_there or "").strip(" #")
    return _Label(match.start(), match.end(), name.lower(), number, f"{name} {number}" if number else name)


def _label_in_capitals(match: re.Match[str]) -> _Label:
    name, number = match["label"], match["number"] or ""
    return _Label(match.start(), match.end(), name.lower(), number, f"{name} {number}" if number else name)


def _numbers_count_turns(marks: Sequence[_Label], roles: Mapping[str, Role | None]) -> bool:
    """Return whether the numbers of both speakers rise through the whole text: ``T1``, ``C1``, ``T2``, ``C2`` …"""
    numbers: dict[Role, list[int]] = {"patient": [], "therapist": []}
    for mark in marks:
        if role := roles.get(mark.name):
            if not mark.number.isdecimal():
                return False
            numbers[role].append(int(mark.number))
    return all(
        len(counted) > 1 and all(before < after for before, after in pairwise(counted)) for counted in numbers.values()
    )


def _first_numbers(marks: Sequence[_Label]) -> dict[str, str]:
    """Return the lowest number of each speaker; none counts as the lowest."""
    numbers: dict[str, str] = {}
    for mark in marks:
        if mark.name not in numbers or (len(mark.number), mark.number) < (len(numbers[mark.name]), numbers[mark.name]):
            numbers[mark.name] = mark.number
    return numbers
