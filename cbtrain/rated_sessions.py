"""Transcripts in the shape that raters take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.eval.dialogue import FAILURES
from cbtrain.eval.runner import SessionRecord, session_id
from cbtrain.transcripts.types import Session

ONE_ARM = "transcripts"


def records(sessions: Iterable[Session]) -> Iterator[SessionRecord]:
    """A session's number stands for the seed, ``facts.arm`` for the arm."""
    for session in sessions:
        patient = session.patient or session.course
        arm = session.facts.get("arm", ONE_ARM)
        yield SessionRecord(session.id, arm, patient, session.number, list(session.turns))


def records_of_run(sessions: Iterable[Session]) -> Iterator[SessionRecord]:
    """The ``sessions.jsonl`` of a run folder, with the ids and seeds that the run's ``scores.csv`` has. Raises
    UserError on a session that no evaluation has written."""
    for session in sessions:
        arm, seed = session.facts.get("arm"), session.number - 1
        if not arm or not session.patient:
            fix = "Name the file itself to take it as a corpus."
            raise UserError("no session of an evaluation: arm or patient is missing", where=session.where, fix=fix)
        name = session_id(session.patient, arm, seed)
        yield SessionRecord(name, arm, session.patient, seed, list(session.turns))


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is that of a run: settings and events lie in it."""
    return (folder / "config.yaml").is_file() and (folder / "events.jsonl").is_file()


def failed(session: Session) -> bool:
    """Whether it ended for a reason that says nothing about the therapist."""
    return session.facts.get("ending") in FAILURES
