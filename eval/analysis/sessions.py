"""The outcome of every session, rated or not: length, ending, failure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cbtrain.transcripts.types import FAILED, Session

ONE_ARM = "transcripts"
"""Name of the arm of transcripts that name no arm."""

Key = tuple[str, str, int]
"""Identity of a session in tables of scores: arm, patient, and number or seed."""


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """``turns`` and ``words`` of both speakers; ``ending`` as the source names it, empty if it names none. ``failed``:
    a failure ended the session that is not the therapist's (an API error, say)."""

    turns: int
    words: int
    ending: str
    failed: bool


def session_outcomes(sessions: Iterable[Session]) -> dict[Key, SessionOutcome]:
    """Return the outcome of each of ``sessions`` by arm, patient and number (the seed, if the transcripts name one)."""
    outcomes = {}
    for session in sessions:
        ending = session.facts.get("ending", "")
        key = (session.facts.get("arm", ONE_ARM), session.patient or session.course, seed_of(session))
        outcomes[key] = SessionOutcome(len(session.turns), session.words, ending, ending in FAILED)
    return outcomes


def seed_of(session: Session) -> int:
    """Return the number of ``session`` in tables of scores: its seed, or its number if there is none."""
    seed = session.facts.get("seed", "")
    return int(seed) if seed.isdecimal() else session.number
