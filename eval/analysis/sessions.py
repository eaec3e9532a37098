"""The outcome of every session, rated or not: length, ending, failure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cbtrain.transcripts.types import FAILED, Session

ONE_ARM = "transcripts"
"""The arm of transcripts that name none."""

Key = tuple[str, str, int]
"""Arm, patient, and number or seed: what tables of scores know a session by."""


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """``turns`` of both speakers and their ``words``; ``ending`` as the source names it. ``failed``: it ended by a
    failure that says nothing about the therapist."""

    turns: int
    words: int
    ending: str
    failed: bool


def session_outcomes(sessions: Iterable[Session]) -> dict[Key, SessionOutcome]:
    """Return the outcomes of simulated sessions by arm, patient and number (the seed, if the transcripts name one)."""
    found = {}
    for session in sessions:
        ending = session.facts.get("ending", "")
        key = (session.facts.get("arm", ONE_ARM), session.patient or session.course, seed_of(session))
        found[key] = SessionOutcome(len(session.turns), session.words, ending, ending in FAILED)
    return found


def seed_of(session: Session) -> int:
    """Return what tables of scores number this session by."""
    seed = session.facts.get("seed", "")
    return int(seed) if seed.isdecimal() else session.number
