"""The outcome of every session, rated or not: length, ending, failure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cbtrain.eval.simulation.slots import MOST_SESSIONS, slot_of
from cbtrain.transcripts.types import FAILED, Session

ONE_ARM = "transcripts"
"""Name of the arm of transcripts that name no arm."""

Key = tuple[str, str, int]
"""Identity of a session in tables of scores: arm, patient, and slot (:mod:`cbtrain.eval.simulation.slots`)."""

SESSION, SIMULATOR = "session", "simulator"
"""Facts of a transcript: the session's number in its course, and who played the patient."""


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """``turns`` and ``words`` of both speakers; ``ending`` as the source names it, empty if it names none. ``failed``:
    a failure ended the session that is not the therapist's (an API error, say)."""

    turns: int
    words: int
    ending: str
    failed: bool


def session_outcomes(sessions: Iterable[Session]) -> dict[Key, SessionOutcome]:
    """Return the outcome of each of ``sessions`` by arm, patient and slot."""
    outcomes = {}
    for session in sessions:
        ending = session.facts.get("ending", "")
        key = (session.facts.get("arm", ONE_ARM), session.patient or session.course, slot_in(session))
        outcomes[key] = SessionOutcome(len(session.turns), session.words, ending, ending in FAILED)
    return outcomes


def seed_of(session: Session) -> int:
    """Return the number of ``session`` in tables of scores: its seed, or its number if there is none."""
    seed = session.facts.get("seed", "")
    return int(seed) if seed.isdecimal() else session.number


def number_of(session: Session) -> int:
    """Return the number in the course that the facts of ``session`` name, 0 if they name none."""
    number = session.facts.get(SESSION, "")
    return int(number) if number.isascii() and number.isdigit() and int(number) < MOST_SESSIONS else 0


def slot_in(session: Session) -> int:
    """Return the slot of ``session`` in tables of scores."""
    return slot_of(seed_of(session), number_of(session), session.facts.get(SIMULATOR, ""))
