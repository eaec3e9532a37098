"""Transcripts in the shape that raters take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from cbtrain.eval.analysis.sessions import ONE_ARM, seed_of
from cbtrain.eval.runner import SessionRecord
from cbtrain.transcripts.types import Session


def records(sessions: Iterable[Session]) -> Iterator[SessionRecord]:
    """``facts.arm`` names the arm. A run's own transcripts hold the ids and seeds that its scores have; elsewhere a
    session's number stands for the seed."""
    for session in sessions:
        facts = session.facts
        arm, patient = facts.get("arm", ONE_ARM), session.patient or session.course
        made = SessionRecord(facts.get("id", session.id), arm, patient, seed_of(session), list(session.turns))
        made.ending, made.error = facts.get("ending"), facts.get("error")
        yield made


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is that of a run: settings and events lie in it."""
    return (folder / "config.yaml").is_file() and (folder / "events.jsonl").is_file()
