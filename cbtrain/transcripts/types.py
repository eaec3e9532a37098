"""What a therapy session is: turns, sessions, courses, a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cbtrain.text.words import count_words
from cbtrain.transcripts.profile import Profile

Role = Literal["patient", "therapist"]

OwnSide = Literal["validation", "test"]
OWN_SIDES: tuple[OwnSide, ...] = ("validation", "test")
"""Parts of a corpus that may lie in a file of their own."""

Phase = Literal["assessment", "initial", "middle", "termination"]
PHASES: tuple[Phase, ...] = ("assessment", "initial", "middle", "termination")

Ending = Literal[
    "patient_end",
    "end_phrase",
    "max_turns",
    "max_words",
    "repetition",
    "empty_turn",
    "context_limit",
    "content_filter",
    "budget",
    "provider_error",
    "internal_error",
]
"""How a simulated session can end."""

FAILURES: tuple[Ending, ...] = ("content_filter", "budget", "provider_error", "internal_error")
"""Endings of ours that say nothing about the therapist."""

FAILED: tuple[str, ...] = (*FAILURES, "Critical Error")
"""Whatever says nothing about the therapist: our failures, and what the 2024 study's simulations call theirs."""


def phase_of(number: int) -> Phase:
    """Return the treatment phase of session ``number`` (1-based) in a 20-session course (Tahir 2024, its table of
    phases)."""
    if number <= 3:
        return "assessment"
    if number <= 7:
        return "initial"
    return "middle" if number <= 17 else "termination"


@dataclass(frozen=True, slots=True)
class Turn:
    """One uninterrupted stretch of speech. ``weight`` multiplies the loss of its tokens: 0 is context only."""

    role: Role
    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Preference:
    """What makes a session a pair: its turns from index ``begin`` on were chosen over the turns ``rejected``, which
    answer the same turns before. ``weight`` multiplies the pair's loss."""

    begin: int
    rejected: tuple[Turn, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Session:
    """One session: ``number`` counts from 1 inside its course; ``where`` names the file (and line) it came from.

    ``patient`` is who is treated, where that is not the course itself: one patient treated by several therapists has
    several courses. ``preamble`` is text before the first speaker's label, which belongs to nobody. ``source_words``
    counts words of the text it was parsed from, labels included (0: there was no such text).
    ``facts`` is what else the source says of it (``ending``, ``summary``, ``system``, ``arm`` …). ``ignored`` counts
    turns of third speakers, which are left out. ``structured``: the source names the speaker of each turn outside its
    text, so that a label inside it is speech about labels. ``preference``: it is a pair of answers, the chosen one in
    ``turns`` (:func:`cbtrain.transcripts.preference.pair_session`).
    """

    course: str
    number: int
    turns: tuple[Turn, ...]
    where: str = field(default="", compare=False)
    patient: str = ""
    preamble: str = ""
    source_words: int = field(default=0, compare=False)
    facts: dict[str, str] = field(default_factory=dict)
    ignored: int = field(default=0, compare=False)
    structured: bool = field(default=False, compare=False)
    preference: Preference | None = None

    @property
    def id(self) -> str:
        return f"{self.course}/{self.number}"

    @property
    def phase(self) -> Phase:
        return phase_of(self.number)

    @property
    def words(self) -> int:
        return sum(count_words(turn.text) for turn in self.turns)

    def count(self, role: Role) -> int:
        return sum(turn.role == role for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Course:
    """One patient's sessions in order of their numbers (the paper's "set")."""

    id: str
    sessions: tuple[Session, ...]
    profile: Profile | None = None

    @property
    def patient(self) -> str:
        """Who is treated: a split keeps all courses of one patient together."""
        return (self.sessions[0].patient if self.sessions else "") or self.id


@dataclass(frozen=True, slots=True)
class Corpus:
    """Courses read from one place; ``format`` names the reader; ``skipped`` says what could not be read, if allowed;
    ``notes`` what was left out on purpose. ``labels``: speakers' labels that options or a map give; they are looked for
    inside turns too. ``sides`` are the parts of courses that came from a part's own file."""

    source: str
    format: str
    courses: tuple[Course, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    labels: Mapping[str, Role] = field(default_factory=dict)
    sides: Mapping[str, OwnSide] = field(default_factory=dict)

    def sessions(self) -> Iterator[Session]:
        for course in self.courses:
            yield from course.sessions

    @property
    def words(self) -> int:
        return sum(session.words for session in self.sessions())
