"""Parse a text in which each turn begins with a label; no turn of a third speaker becomes anybody else's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cbtrain.transcripts.label_grammar import CAPITALS, COLON, OTHER_ENDS, line_pattern
from cbtrain.transcripts.types import Role, Turn

THIRD = tuple(
    "mother father mom mum mommy dad daddy parent parents wife husband spouse partner girlfriend boyfriend son "
    "daughter "
    "child kid brother sister sibling grandmother grandfather family friend teacher interviewer moderator facilitator "
    "observer narrator supervisor nurse interpreter translator group speaker person participant unknown unidentified "
    "other others 妈妈 爸爸 母亲 父亲 丈夫 妻子 儿子 女儿 旁白".split()
)
"""Whoever else speaks in sessions, as transcripts label them."""


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

    A label with a number (``Client 2``) is another speaker than the one with the lowest number. Words after a label of
    a third speaker (a common one such as ``Mother``; in a text whose labels are in capitals, any in capitals) are
    nobody's: they are counted in ``ignored``. If colons give no dialogue, labels may end in a tab or dash.
    """
    parsed = _parse(text, labels, ignore, COLON)
    if not parsed.is_dialogue:
        other = _parse(text, labels, ignore, OTHER_ENDS)
        parsed = other if other.is_dialogue else parsed
    return parsed


def _parse(text: str, labels: Mapping[str, Role], ignore: Sequence[str], separator: str) -> LabelledText:
    roles: dict[str, Role | None] = dict.fromkeys((name.lower() for name in (*THIRD, *ignore)), None)
    roles |= {label.lower(): role for label, role in labels.items()}
    roles |= dict.fromkeys((name.lower() for name in ignore), None)
    names = tuple(sorted(roles))
    marks = list(_labels(text, line_pattern(names, separator=separator)))
    of_speakers = [mark for mark in marks if roles[mark.name]]
    if len(of_speakers) > 1 and all(mark.written.isupper() and len(mark.name) > 1 for mark in of_speakers):
        marks = sorted(
            {mark.start: mark for mark in (*_labels(text, CAPITALS), *marks)}.values(), key=lambda m: m.start
        )
    first_number = _first_numbers(marks)
    if not marks:
        return LabelledText(preamble=text.strip())
    parsed = LabelledText(preamble=text[: marks[0].start].strip())
    for mark, end in zip(marks, [mark.start for mark in marks[1:]] + [len(text)], strict=True):
        words, role = text[mark.end : end].strip(), roles.get(mark.name)
        if role is None or mark.number != first_number[mark.name]:
            parsed.ignored[mark.written] += 1
        elif words:
            parsed.turns.append(Turn(role, words))
        else:
            parsed.empty += 1
    return parsed


def _labels(text: str, pattern: re.Pattern[str]) -> Iterator[_Label]:
    for match in pattern.finditer(text):
        groups = match.groupdict()
        name = groups["label"] or groups["bracketed"] or groups["stamped"]
        number = (groups["number"] or groups.get("number_there") or "").strip(" #")
        yield _Label(match.start(), match.end(), name.lower(), number, f"{name} {number}".strip())


def _first_numbers(marks: Sequence[_Label]) -> dict[str, str]:
    """Return the lowest number of each speaker; none counts as the lowest."""
    numbers: dict[str, str] = {}
    for mark in marks:
        if mark.name not in numbers or (len(mark.number), mark.number) < (len(numbers[mark.name]), numbers[mark.name]):
            numbers[mark.name] = mark.number
    return numbers
