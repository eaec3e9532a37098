"""Replace personal data in a corpus by tags that are consistent for each patient: ``[PERSON_1]``, ``[DATE_2]``.

One name has one tag in all sessions, facts and the profile of a patient; another patient's tags count from 1 again.
What is found is a part of what is there: the result is less identifying, not anonymous.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cbtrain.transcripts.labels import TEXT_LABELS, names_of
from cbtrain.transcripts.preference import all_turns
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.pseudonyms.lists import Lists
from cbtrain.transcripts.pseudonyms.names import WORD, NameFinder
from cbtrain.transcripts.pseudonyms.shapes import MONTH_NAME, Span, shaped_spans
from cbtrain.transcripts.types import Corpus, Course, Session, Turn

LOWER = re.compile(r"(?<![^\W\d_])[a-z][a-z'’-]{0,40}")
CAPITAL = re.compile(r"(?<=[a-z,] )[A-Z][a-z'’-]{0,40}")
"""A word with a capital letter in mid-sentence."""
TAG = re.compile(r"\[([A-Z]{2,12})_(\d{1,6})\]")
OLD = 89
"""Ages above it are few people's, and are replaced."""
AROUND = 40
"""Characters before and after a text that the review shows."""


@dataclass(slots=True)
class Entry:
    """A line of the review: what ``tag`` of ``patient`` stands for (an empty tag: undecided, not replaced), how it was
    found, how often, and where first."""

    patient: str
    tag: str
    kind: str
    original: str
    how: str
    count: int = 0
    context: str = ""


@dataclass(slots=True)
class Pseudonyms:
    """What was replaced. ``ids``: ids of patients and courses, left as they are, that hold a name."""

    entries: dict[tuple[str, str, str], Entry] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def by_kind(self) -> dict[str, dict[str, int]]:
        """Return for each kind the number of tags and of replacements; ``undecided``: words, and how often."""
        tags: dict[str, set[tuple[str, str]]] = defaultdict(set)
        replaced: Counter[str] = Counter()
        for entry in self.entries.values():
            kind = entry.kind if entry.tag else "undecided"
            tags[kind].add((entry.patient, entry.tag or entry.original))
            replaced[kind] += entry.count
        return {kind: {"tags": len(tags[kind]), "times": replaced[kind]} for kind in sorted(tags)}


@dataclass(frozen=True, slots=True)
class Settings:
    """``also``: texts to replace, in lower case, with their kind; ``keep``: texts to leave, in lower case;
    ``therapist_names``; ``ids``: whether ids of patients and courses are replaced, too."""

    also: Mapping[str, str] = field(default_factory=dict)
    keep: Collection[str] = frozenset()
    therapist_names: Sequence[str] = ()
    ids: bool = False


def pseudonymise(corpus: Corpus, lists: Lists, settings: Settings) -> tuple[Corpus, Pseudonyms]:
    """Return a copy of ``corpus`` with tags for personal data, and what they stand for."""
    lower_words, capital_words = _count_words(corpus)
    patients: dict[str, list[Course]] = defaultdict(list)
    for course in corpus.courses:
        patients[course.patient].append(course)
    pseudonyms, replaced = Pseudonyms(), {}
    for number, (patient, courses) in enumerate(patients.items(), 1):
        finder = NameFinder(lists, lower_words, capital_words, keep=settings.keep)
        finder.learn((name for name in corpus.labels if name not in TEXT_LABELS and len(name) > 2), "speaker's label")
        tagger = _Tagger(patient, finder, settings, pseudonyms)
        tagger.read(courses)
        for position, course in enumerate(courses, 1):
            changed = _changed(course, tagger.replaced)
            if settings.ids:
                changed = _with_ids(changed, f"patient-{number}", position, len(courses), pseudonyms)
            elif tagger.names_in(course.id) or tagger.names_in(patient):
                pseudonyms.ids.append(course.id)
            replaced[course.id] = changed
    return replace(corpus, courses=tuple(replaced[course.id] for course in corpus.courses)), pseudonyms


class _Tagger:
    """The tags of one patient."""

    def __init__(self, patient: str, finder: NameFinder, settings: Settings, pseudonyms: Pseudonyms) -> None:
        self.patient, self.finder, self.settings, self.pseudonyms = patient, finder, settings, pseudonyms
        self._also = _phrases(settings.also)
        self._tags: dict[tuple[str, str], str] = {}
        self._numbers: Counter[str] = Counter()
        self._aliases: dict[str, str] = {}
        self._whole_names: dict[str, set[str]] = defaultdict(set)

    def read(self, courses: Sequence[Course]) -> None:
        """Learn the names in all texts of the patient, so that each is known everywhere."""
        for course in courses:
            if course.profile and course.profile.name != course.id:
                names = names_of(course.profile, ())
                self.finder.learn(names, "profile")
                self._aliases |= {name.lower(): course.profile.name.lower() for name in names}
        self.finder.learn(self.settings.therapist_names, "therapist's name")
        persons: dict[str, str] = {}
        for text in _texts(courses):
            for kind, number in TAG.findall(text):  # tags of an earlier pass keep their meaning
                self._numbers[kind] = max(self._numbers[kind], int(number))
            for span in self.finder.spans(text):
                if span.kind == "PERSON":
                    persons.setdefault(text[span.start : span.end], span.how)
        for name, how in persons.items():
            words = [word.lower() for word in WORD.findall(name)]
            self.finder.learn([name], how)
            if len(words) > 1:
                self.finder.learn((word for word in words if len(word) > 2), f"part of a name ({how})")
                for word in words:
                    self._whole_names[word].add(" ".join(words))

    def names_in(self, text: str) -> bool:
        """Return whether a word of an id is a known name."""
        return any(word.lower() in self.finder.known_names for word in re.findall(r"[^\W\d_]{3,40}", text))

    def replaced(self, text: str) -> str:
        """Return ``text`` with tags, and record what they stand for."""
        parts, position = [], 0
        for span in self._spans(text):
            original = text[span.start : span.end]
            tag = self._tag(span.kind, original) if span.kind else ""
            self._record(span, tag, original, text)
            if tag:
                parts += [text[position : span.start], tag]
                position = span.end
        return "".join(parts) + text[position:]

    def _spans(self, text: str) -> list[Span]:
        """Return what to replace from left to right; of two that overlap the surer one."""
        taken = bytearray(len(text))
        chosen = []
        for span in (*self._phrases_of_a_person(text), *shaped_spans(text), *self.finder.spans(text)):
            if any(taken[span.start : span.end]) or text[span.start : span.end].lower() in self.settings.keep:
                continue
            taken[span.start : span.end] = b"\1" * (span.end - span.start)
            chosen.append(span)
        return sorted(chosen, key=lambda span: span.start)

    def _phrases_of_a_person(self, text: str) -> Iterator[Span]:
        """Yield the texts that a person named."""
        if self._also:
            for match in self._also.finditer(text):
                yield Span(*match.span(), self.settings.also[match.group().lower()], "own list")

    def _tag(self, kind: str, original: str) -> str:
        key = kind, self._key(kind, original)
        if key not in self._tags:
            self._numbers[kind] += 1
            self._tags[key] = f"[{kind}_{self._numbers[kind]}]"
        return self._tags[key]

    def _key(self, kind: str, original: str) -> str:
        """Return what is the same for texts that mean one thing: a whole name and its parts, a date in two forms."""
        if kind == "PERSON":
            key = " ".join(WORD.findall(original)).lower()
            if key in self._aliases:
                return self._aliases[key]
            whole = {self._aliases.get(name, name) for name in self._whole_names.get(key, ())}
            return whole.pop() if len(whole) == 1 else key
        if kind in ("PHONE", "ACCOUNT"):
            return re.sub(r"\W", "", original).lower()
        return _date_key(original) if kind == "DATE" else " ".join(original.lower().split())

    def _record(self, span: Span, tag: str, original: str, text: str) -> None:
        key = self.patient, tag, original
        if key not in self.pseudonyms.entries:
            around = text[max(0, span.start - AROUND) : span.end + AROUND]
            self.pseudonyms.entries[key] = Entry(
                self.patient, tag, span.kind or "?", original, span.how, 0, " ".join(around.split())
            )
        self.pseudonyms.entries[key].count += 1


def _date_key(date: str) -> str:
    """Return day, month and year of a date that names its month, in one form; others as they are."""
    month = MONTH_NAME.search(date)
    if month is None:
        return date
    numbers = [int(number) for number in re.findall(r"\d{1,4}", date)]
    return " ".join([month.group()[:3].lower(), *map(str, sorted(numbers))])


def _changed(course: Course, change: Callable[[str], str]) -> Course:
    """Return a copy of ``course`` with ``change`` made in all its texts."""

    def changed(turns: Iterable[Turn]) -> tuple[Turn, ...]:
        return tuple(replace(turn, text=change(turn.text)) for turn in turns)

    sessions = [
        replace(
            session,
            turns=changed(session.turns),
            preamble=change(session.preamble),
            facts={name: change(value) for name, value in session.facts.items()},
            preference=session.preference
            and replace(session.preference, rejected=changed(session.preference.rejected)),
        )
        for session in course.sessions
    ]
    return replace(
        course, sessions=tuple(sessions), profile=course.profile and _changed_profile(course.profile, change)
    )


def _changed_profile(profile: Profile, change: Callable[[str], str]) -> Profile:
    characteristics: dict[str, str | list[str]] = {}
    for key, value in profile.characteristics.items():
        values = [_without_old_age(key, change(item)) for item in ([value] if isinstance(value, str) else value)]
        characteristics[key] = values[0] if isinstance(value, str) else values
    texts = {key: change(getattr(profile, key)) for key in ("name", "brief", "text") if getattr(profile, key)}
    return profile.model_copy(update={**texts, "characteristics": characteristics})


def _without_old_age(key: str, value: str) -> str:
    return "[AGE_OVER_89]" if key.lower() == "age" and value.isdecimal() and int(value) > OLD else value


def _with_ids(course: Course, patient: str, position: int, courses: int, pseudonyms: Pseudonyms) -> Course:
    """Return ``course`` with ids that say nothing; facts that repeat an old one change with it."""
    new = patient if courses == 1 else f"{patient}-course-{position}"
    old_ids = {course.id: new, course.patient: patient}
    for old, tag in old_ids.items():
        pseudonyms.entries[course.patient, tag, old] = Entry(course.patient, tag, "ID", old, "id", 1)
    sessions = [_session_with_ids(session, new, patient, old_ids) for session in course.sessions]
    profile = course.profile and course.profile.model_copy(update={"course": new})
    if profile and profile.name == course.id:
        profile = profile.model_copy(update={"name": new})
    return Course(new, tuple(sessions), profile)


def _session_with_ids(session: Session, course: str, patient: str, old_ids: Mapping[str, str]) -> Session:
    facts = {name: old_ids.get(value, value) for name, value in session.facts.items()}
    return replace(session, course=course, patient=patient if session.patient else "", facts=facts)


def _texts(courses: Iterable[Course]) -> Iterator[str]:
    for course in courses:
        if profile := course.profile:
            yield from (profile.name, profile.brief, profile.text)
            for value in profile.characteristics.values():
                yield from [value] if isinstance(value, str) else value
        for session in course.sessions:
            yield from (turn.text for turn in all_turns(session))
            yield from session.facts.values()


def _count_words(corpus: Corpus) -> tuple[Counter[str], Counter[str]]:
    """Return how often each word is in lower case, and how often with a capital letter in mid-sentence."""
    lower_words: Counter[str] = Counter()
    capital_words: Counter[str] = Counter()
    for session in corpus.sessions():
        for turn in all_turns(session):
            lower_words.update(LOWER.findall(turn.text))
            capital_words.update(word.lower() for word in CAPITAL.findall(turn.text))
    return lower_words, capital_words


def _phrases(also: Mapping[str, str]) -> re.Pattern[str] | None:
    """Return the pattern of texts that a person named, the longest first."""
    if not also:
        return None
    either = "|".join(re.escape(text) for text in sorted(also, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)
