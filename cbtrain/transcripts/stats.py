"""Count a corpus as it is labelled, before any cleaning."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from cbtrain.transcripts.types import Corpus, Session


def stats(corpus: Corpus) -> dict[str, int]:
    """Counts by name. ``words`` are the reader's own where it has raw text (labels included), else the turns'."""
    sessions = list(corpus.sessions())
    return {
        "courses": len(corpus.courses),
        "sessions": len(sessions),
        "turns": sum(len(session.turns) for session in sessions),
        "therapist_turns": sum(session.count("therapist") for session in sessions),
        "patient_turns": sum(session.count("patient") for session in sessions),
        "words": corpus.facts.get("words", corpus.words),
        "sessions_with_repeated_speaker": sum(_repeats(session) for session in sessions),
        "sessions_without_turns": sum(not session.turns for session in sessions),
    }


def _repeats(session: Session) -> bool:
    roles: Iterable[str] = (turn.role for turn in session.turns)
    return any(a == b for a, b in pairwise(roles))
