"""Find names of people and places in English text: known ones, those that a phrase gives, and those of lists.

A word of a list that is an English word, too (``Will``, ``Reading``), counts only if the words around it say that it is
a name; otherwise it is undecided. So is a word with a capital letter in mid-sentence that no list knows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from cbtrain.transcripts.pseudonyms.lists import MONTHS, NO_NAMES, Lists
from cbtrain.transcripts.pseudonyms.shapes import Span

WORD = re.compile(r"[^\W\d_][\w'’-]{0,40}")
POSSESSIVE = re.compile(r"(?:['’]s?|-)$")
SENTENCE_END = frozenset('.!?…:;\n•。！？"“')
ABBREVIATIONS = frozenset("dr mr mrs ms prof st".split())
AROUND = " \t\"“”‘'’([{*_-–—#>"
"""Characters between the end of a sentence and the first word of the next."""

TITLES = frozenset(
    "dr doctor mr mrs ms miss mx prof professor nurse uncle aunt auntie sir madam father sister pastor".split()
)
RELATIONS = frozenset(
    "husband wife partner spouse son daughter child kid baby mother father mom mum dad mommy daddy brother sister "
    "sibling cousin uncle aunt niece nephew grandmother grandfather grandma grandpa grandson granddaughter boyfriend "
    "girlfriend fiancé fiancée fiance fiancee ex ex-husband ex-wife friend friends roommate flatmate neighbor "
    "neighbour colleague coworker co-worker boss manager supervisor teacher coach therapist counselor counsellor "
    "psychiatrist doctor nurse dog cat twin stepson stepdaughter stepmother stepfather stepdad stepmom landlord "
    "classmate mentor".split()
)
OWNERS = frozenset("my his her their our your".split())
BEFORE_A_PERSON = frozenset(
    "with told tell asked ask called call named met miss missed love loved loves hate hated about by and saw see "
    "thank thanks hi hello hey dear bye goodbye visit visited dating married marry like texted text phoned "
    "emailed".split()
)
AFTER_A_PERSON = frozenset("said says told asked thinks thought wants wanted called calls texted knows agreed".split())
AFTER_AN_AMBIGUOUS = AFTER_A_PERSON | frozenset("is was has had and who".split())
GREETINGS = frozenset("hi hello hey dear bye goodbye thanks morning afternoon evening thank".split())
BEFORE_A_PLACE = frozenset(
    "in at from to near to through around outside visit visited visiting leave left leaving across downtown".split()
)

LONGEST_NAME = 6
"""Words of a name."""


class _Word(NamedTuple):
    """A word at ``[start, end)`` without a possessive; ``between`` is the text since the word before, ``after`` that
    word in lower case."""

    start: int
    end: int
    text: str
    lower: str
    between: str
    after: str

    @property
    def capital(self) -> bool:
        return self.text[0].isupper() and not (len(self.text) > 1 and self.text.isupper())

    @property
    def initial(self) -> bool:
        """Whether the word begins a sentence."""
        if not self.after or "\n" in self.between:
            return True
        abbreviated = self.after in ABBREVIATIONS or len(self.after) == 1
        if abbreviated and self.between.strip(AROUND) == ".":
            return False
        return not SENTENCE_END.isdisjoint(self.between)


@dataclass(slots=True)
class NameFinder:
    """Finds names in the texts of one patient.

    ``lower_words`` counts the corpus's words in lower case, ``capital_words`` those with a capital letter in
    mid-sentence (keys in lower case). ``known_names`` says how each known name, in lower case, is known; ``keep`` are
    words and phrases in lower case that are no names.
    """

    lists: Lists
    lower_words: Mapping[str, int]
    capital_words: Mapping[str, int]
    known_names: dict[str, str] = field(default_factory=dict)
    keep: Collection[str] = ()
    _longest: dict[str, int] = field(default_factory=dict)
    """Words of the longest known name that begins with a word."""

    def learn(self, names: Iterable[str], how: str) -> None:
        """Know ``names`` from now on: whole names of one or more words."""
        for name in names:
            words = [word.lower() for word in WORD.findall(name)][:LONGEST_NAME]
            key = " ".join(words)
            if not words or key in self.known_names or key in self.keep or len(key) < 2:
                continue
            self.known_names[key] = how
            self._longest[words[0]] = max(self._longest.get(words[0], 0), len(words))

    def spans(self, text: str) -> list[Span]:
        """Return the names in ``text`` from left to right, none inside another; undecided ones have no kind."""
        words = _words(text)
        spans: list[Span] = []
        index = 0
        while index < len(words):
            word = words[index]
            # Most words are small ones, which only begin a known name or follow "my name is".
            small = word.text[0].islower() and word.lower not in self._longest and word.after not in ("is", "me")
            if small:
                index += 1
                continue
            name = self._known_name(text, words, index) or self._by_words(text, words, index) or self._perhaps(word)
            if name is None:
                index += 1
                continue
            count, kind, how = name
            start, end = words[index].start, words[index + count - 1].end
            if text[start:end].lower() not in self.keep:
                spans.append(Span(start, end, kind, how))
            index += count
        return spans

    def is_common(self, word: str) -> bool:
        """Return whether ``word`` is an English word: of a list, or here more often without a capital letter."""
        lower = word.lower()
        return lower in self.lists.common or self.lower_words.get(lower, 0) > self.capital_words.get(lower, 0)

    def _is_no_mere_name(self, word: str) -> bool:
        """Return whether a known name is an English word, too; a corpus in lower case tells nothing of a first name."""
        return word in self.lists.common or (self.is_common(word) and word not in self.lists.first)

    def _known_name(self, text: str, words: list[_Word], index: int) -> tuple[int, str, str] | None:
        word = words[index]
        for count in range(self._longest.get(word.lower, 0), 0, -1):
            part = words[index : index + count]
            name = " ".join(other.lower for other in part)
            if len(part) < count or name not in self.known_names or not _adjacent(text, part):
                continue
            capital, is_word = word.text[0].isupper(), count == 1 and self._is_no_mere_name(name)
            if not capital and (is_word or len(name) < 3):
                continue
            if is_word and word.initial and not _is_addressed(text, words, index):
                continue
            return count, "PERSON", self.known_names[name]
        return None

    def _by_words(self, text: str, words: list[_Word], index: int) -> tuple[int, str, str] | None:
        """Return the number of words, the kind and the way of a name that begins at a word."""
        word = words[index]
        before = words[index - 1].lower if index and _near(text, words[index - 1], word) else ""
        earlier = words[index - 2].lower if before and index > 1 else ""
        if word.lower in NO_NAMES and word.lower not in self.lists.first:
            return None
        common = self.is_common(word.text)
        given = (earlier, before) in (("name", "is"), ("call", "me")) and not (before == "me" and common)
        if given and (word.capital or word.lower in self.lists.first):
            return self._whole(text, words, index), "PERSON", f"phrase: {earlier} {before} …"
        if not word.capital or len(word.text) < 2:
            return None
        if before.replace("’", "'") == "i'm" and earlier in GREETINGS and not common:
            return self._whole(text, words, index), "PERSON", f"phrase: {earlier}, {before} …"
        if before in TITLES and (before not in RELATIONS or not common):
            return self._whole(text, words, index), "PERSON", f"title {words[index - 1].text}"
        is_name = word.lower in self.lists.first or word.lower in self.lists.last
        if before in RELATIONS and (not common or is_name) and (earlier in OWNERS or before in ("ex", "friend")):
            return self._whole(text, words, index), "PERSON", f"phrase: {earlier} {before} …".replace("  ", " ")
        # What is called something need not be a person: "called Socratic questioning".
        if ((before == "named" and not common) or (before in ("named", "called") and is_name)) and not word.initial:
            return self._whole(text, words, index), "PERSON", f"phrase: {before} …"
        if place := self._place(text, words, index, before, is_name, common):
            return place
        if word.initial:
            frequent = word.lower in self.lists.frequent and not common
            if frequent or (is_name and _is_addressed(text, words, index)):
                return self._whole(text, words, index), "PERSON", "list of names"
            return None
        if is_name and not common:
            return self._whole(text, words, index), "PERSON", "list of names"
        if is_name and _is_said_of_a_person(text, words, index, before):
            return self._whole(text, words, index), "PERSON", "list of names, and the words around it"
        if word.lower in MONTHS:
            return None
        if is_name or word.lower in self.lists.large_places:
            return 1, "", "undecided: a name or a place, and an English word"
        return None if common or self._in_heading(text, words, index) else (1, "", "undecided: in no list")

    def _perhaps(self, word: _Word) -> tuple[int, str, str] | None:
        """Return a word as undecided if it begins a sentence, so that its capital letter says nothing, and is a known
        name or a listed one that is no English word."""
        if not (word.initial and word.capital) or len(word.text) < 2 or word.lower in NO_NAMES:
            return None
        if word.lower in self.known_names:
            return 1, "", "undecided: a known name, and an English word"
        is_name = word.lower in self.lists.first or word.lower in self.lists.last
        is_name = is_name and not self.is_common(word.text)
        return (1, "", "undecided: a name that begins a sentence") if is_name else None

    def _place(
        self, text: str, words: list[_Word], index: int, before: str, is_name: bool, common: bool
    ) -> tuple[int, str, str] | None:
        """Return a place that begins at a word: a large one in mid-sentence, any one after a word such as ``in``."""
        for count in (3, 2, 1):
            part = words[index : index + count]
            name = " ".join(word.text for word in part).lower()
            if len(part) < count or name not in self.lists.places or not _adjacent(text, part):
                continue
            if not all(word.text[0].isupper() for word in part):
                continue
            after_word = before in BEFORE_A_PLACE and name not in MONTHS
            if count > 1 and (name in self.lists.large_places or after_word):
                return count, "PLACE", "list of places"
            if count == 1 and after_word and not (before == "to" and is_name):
                return count, "PLACE", f"list of places, after {before!r}"
            if count == 1 and name in self.lists.large_places and not (is_name or common or part[0].initial):
                return count, "PLACE", "list of places"
        return None

    def _whole(self, text: str, words: list[_Word], index: int) -> int:
        """Return of how many words the name is that begins at a word: names with a capital letter that follow, and
        initials."""
        count = 1
        while count < 4 and index + count < len(words):
            word, last = words[index + count], words[index + count - 1]
            between = text[last.end : word.start]
            if between not in (" ", ". ") or not word.text[0].isupper() or word.text == "I":
                break
            if between == ". " and len(last.text) > 1:
                break
            is_initial = len(word.text) == 1 and text[word.end : word.end + 1] == "."
            is_name = word.lower in self.lists.last or word.lower in self.lists.first
            may_follow = word.capital and word.lower not in NO_NAMES and (is_name or not self.is_common(word.text))
            if not is_initial and not may_follow:
                break
            count += 1
        while count > 1 and len(words[index + count - 1].text) == 1:
            count -= 1
        return count

    def _in_heading(self, text: str, words: list[_Word], index: int) -> bool:
        """Return whether a neighbour has a capital letter, too, without being a name: a heading or a title."""
        neighbours = [words[other] for other in (index - 1, index + 1) if 0 <= other < len(words)]
        return any(word.capital and self.is_common(word.text) and word.text != "I" for word in neighbours)


def _is_said_of_a_person(text: str, words: list[_Word], index: int, before: str) -> bool:
    """Return whether the words around an ambiguous name in mid-sentence are those around a person's."""
    word = words[index]
    after = words[index + 1].lower if index + 1 < len(words) and _near(text, word, words[index + 1]) else ""
    if word.lower in MONTHS:
        return before in ("told", "asked", "met", "called", "named") or after in AFTER_A_PERSON
    if text[word.end : word.end + 2] in ("'s", "’s") or before in BEFORE_A_PERSON or after in AFTER_AN_AMBIGUOUS:
        return True
    return _is_addressed(text, words, index)


def _is_addressed(text: str, words: list[_Word], index: int) -> bool:
    """Return whether a name is that of somebody spoken to, or who speaks: ``Hi Will,``, ``Will said``."""
    word = words[index]
    after = words[index + 1].lower if index + 1 < len(words) and _near(text, word, words[index + 1]) else ""
    before = words[index - 1].lower if index and _near(text, words[index - 1], word) else ""
    if after in AFTER_A_PERSON or before in GREETINGS:
        return True
    return text[max(0, word.start - 2) : word.start] == ", " and text[word.end : word.end + 1] in (".", "!", "?", ",")


def _words(text: str) -> list[_Word]:
    words: list[_Word] = []
    position, before = 0, ""
    for match in WORD.finditer(text):
        start, word = match.start(), match.group()
        if word[-1] in "s'’-" and (ending := POSSESSIVE.search(word)):
            word = word[: ending.start()]
        lower = word.lower()
        words.append(_Word(start, start + len(word), word, lower, text[position:start], before))
        position, before = match.end(), lower
    return words


def _adjacent(text: str, words: list[_Word]) -> bool:
    """Return whether one blank, or a point and one, is between each two words."""
    return all(text[a.end : b.start] in (" ", ". ", "-") for a, b in pairwise(words))


def _near(text: str, before: _Word, word: _Word) -> bool:
    """Return whether nothing but blanks, a comma or an abbreviation's point is between two words."""
    between = text[before.end : word.start]
    return len(between) <= 3 and between.strip(" ,'’s") in ("", ".") and (between.strip() != "." or not word.initial)
