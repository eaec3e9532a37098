"""Parse a text in which each turn begins with a label; no turn of a third speaker becomes anybody else's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cbtrain.transcripts.label_grammar import CAPITALS, COLON, OTHER_ENDS, STAMPED, line_pattern
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


@dataclass(slots=True)
class LabelledText:
    """``preamble``: what stands before the first label. ``ignored`` counts turns of third speakers, by label; ``empty``
    turns without words. Both are left out of ``turns``."""

    preamble: str = ""
    turns: list[Turn] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    empty: int = 0

    @property
    def is_dialogue(self) -> bool:
        """Whether both speakers say something."""
        return {turn.role for turn in self.turns} == {"patient", "therapist"}


@dataclass(frozen=True, slots=True)
class _Label:
    """A label at ``[start, end)``: the speaker's name in lower case, its number (``2`` of ``Client 2``), as written."""

    start: int
    end: int
    name: str
    number: str
    written: str


def parse_text(text: str, labels: Mapping[str, Role], ignore: Sequence[str] = ()) -> LabelledText:
    """Return the turns of ``text``; ``labels`` say who is who, speakers in ``ignore`` are left out.

    A label with a number or letter (``Client 2``) is another speaker than the one with the lowest; only if both
    speakers' numbers rise through the whole text do they count turns. Words after a label of a third speaker (a common
    one such as ``Mother``, ``Client's wife``; in a text whose labels are in capitals, any in capitals; in one whose
    labels stand alone with a time, any that does) are nobody's: they are counted in ``ignored``. If colons give no
    turn at all, labels may end in a tab or a dash.
    """
    parsed = _parse(text, labels, ignore, COLON)
    if not parsed.turns:
        other = _parse(text, labels, ignore, OTHER_ENDS)
        parsed = other if other.is_dialogue else parsed
    return parsed


def _parse(text: str, labels: Mapping[str, Role], ignore: Sequence[str], separator: str) -> LabelledText:
    roles: dict[str, Role | None] = dict.fromkeys(THIRD, None)
    roles |= {label.lower(): role for label, role in labels.items()}
    roles |= dict.fromkeys((name.lower() for name in ignore), None)
    marks = _marks(text, roles, separator)
    if not marks:
        return LabelledText(preamble=text.strip())
    first_number = {} if _numbers_count_turns(marks, roles) else _first_numbers(marks)
    parsed = LabelledText(preamble=text[: marks[0].start].strip())
    for mark, end in zip(marks, [mark.start for mark in marks[1:]] + [len(text)], strict=True):
        words, role = text[mark.end : end].strip(), roles.get(mark.name)
        if role is None or mark.number != first_number.get(mark.name, mark.number):
            parsed.ignored[mark.written] += 1
        elif words:
            parsed.turns.append(Turn(role, words))
        else:
            parsed.empty += 1
    return parsed


def _marks(text: str, roles: Mapping[str, Role | None], separator: str) -> list[_Label]:
    """Return the labels in ``text`` in their order: those of ``roles``, and others where the text shows how it writes
    its labels."""
    pattern = line_pattern(tuple(sorted(roles)), separator=separator)
    matches = [match for match in pattern.finditer(text) if _is_closed(match)]
    if any(_label(match).written[0].isupper() for match in matches):
        matches = [match for match in matches if not _is_prose(match)]
    marks = list(map(_label, matches))
    of_speakers = [mark for mark in marks if roles.get(mark.name)]
    others: list[_Label] = []
    if len(of_speakers) > 1 and all(mark.written.isupper() and len(mark.name) > 1 for mark in of_speakers):
        others = [_label(match) for match in CAPITALS.finditer(text) if match["label"].lower() not in WORKSHEET]
    if sum(match["stamped"] is not None for match in matches) > 1:
        others += [_label(match) for match in STAMPED.finditer(text)]
    by_place = {mark.start: mark for mark in (*others, *marks)}
    return [by_place[start] for start in sorted(by_place)]


def _is_closed(match: re.Match[str]) -> bool:
    """Return whether a label in a bracket ends with it: ``[Client: crying]`` is an aside, not a label."""
    return bool(match["open"]) == bool(match["close"])


def _is_prose(match: re.Match[str]) -> bool:
    """Return whether a line begins with a role in lower case, as in the middle of a sentence that was wrapped."""
    written = _label(match).written
    return written[0].islower() and match.group().strip().startswith(written[:1])


def _label(match: re.Match[str]) -> _Label:
    groups = match.groupdict()
    name = groups["label"] or groups.get("bracketed") or groups.get("stamped") or ""
    number = (groups.get("number") or groups.get("number_there") or "").strip(" #")
    other = groups.get("of") or ""
    return _Label(match.start(), match.end(), f"{name}{other}".lower(), number, f"{name}{other} {number}".strip())


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
