"""Continue sessions from the journal of earlier processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.simulation.dialogue import SILENT_PATIENT
from cbtrain.eval.simulation.runner import SUMMARY, SimulatedSession, in_courses, marks_of
from cbtrain.eval.simulation.simulators import SessionBegins
from cbtrain.files import text_digest
from cbtrain.journal import Check, Record, Shape, is_count, is_section, is_text, or_none
from cbtrain.transcripts.types import FAILURES, Turn


def _turn_fields(record: Record) -> Mapping[str, Check]:
    shape: dict[str, Check] = {
        "session": is_text,
        "index": is_count,
        "role": lambda value: value in ("patient", "therapist"),
        "text": is_text,
    }
    optional: dict[str, Check] = {"facts": is_section, "ids": _are_ids}  # older versions wrote none
    return shape | {name: check for name, check in optional.items() if name in record}


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_count, value))


def _start_fields(record: Record) -> Mapping[str, Check]:
    shape: dict[str, Check] = {"session": is_text}
    return shape | {name: is_text for name in ("key", "after") if name in record}  # older versions wrote none


def _end_fields(record: Record) -> Mapping[str, Check]:
    shape: dict[str, Check] = {"session": is_text, "ending": is_text, "error": or_none(is_text)}
    return shape | ({"facts": is_section} if "facts" in record else {})  # of a last answer that became no turn


SHAPES: dict[str, Shape] = {
    "session_started": _start_fields,
    "turn": _turn_fields,
    "session_finished": _end_fields,
    SUMMARY: {"session": is_text, "text": is_text},
}
"""The fields that :func:`restore` needs of a journal's records."""


def restore(sessions: Sequence[SimulatedSession], events: Sequence[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Fill ``sessions`` from a journal's ``events``: finished ones stay finished, begun ones continue where they
    stopped. A session that ended by a failure of the infrastructure continues after its last good turn.

    Turns that were said under another key than those of their session are passed over. Return how many there are, by
    session and key. Raises UserError if a turn is missing.
    """
    by_id = {session.id: session for session in sessions}
    keys: dict[str, str] = {}
    branched: set[str] = set()
    """Sessions in which a process has said other turns than those taken: its later ones answer these, and none of
    ours."""
    passed_over: dict[str, Counter[str]] = {}
    for event in events:
        if event["kind"] not in SHAPES or event["session"] not in by_id:
            continue
        session = by_id[event["session"]]
        if event["kind"] == "session_started":
            keys[session.id] = key = event.get("key", "")
            branched.discard(session.id)
            ours = key == session.key or key in session.keys
            if ours and session.after != event.get("after", ""):  # begun with another summary: nothing before counts
                _forget(session)
                session.after = event.get("after", "")
            continue
        key = keys.get(session.id, "")
        if key != session.key and key not in session.keys:
            if event["kind"] == "turn":
                passed_over.setdefault(session.id, Counter())[key] += 1
        elif session.id in branched:
            continue
        elif event["kind"] == SUMMARY:
            session.summary = event["text"]
        elif event["kind"] == "session_finished":
            if not _to_resume(event):
                session.ending, session.error = event["ending"], event["error"]
        elif event["index"] == len(session.turns):
            session.turns.append(Turn(event["role"], event["text"]))
            session.ids[event["index"]] = tuple(event.get("ids", ()))
            session.marks.update(marks_of(event.get("facts", {})))
        elif event["index"] > len(session.turns):
            hint = "Restore the file from a copy."
            raise UserError(f"turn {len(session.turns) + 1} is missing", where=f"session {session.id}", hint=hint)
        elif session.turns[event["index"]].text != event["text"]:
            branched.add(session.id)
    for course in in_courses(sessions):
        _check_course(course)
    return passed_over


def _check_course(course: Sequence[SimulatedSession]) -> None:
    """Forget the sessions of a course that do not follow from those before: they were begun with another summary."""
    for before, session in pairwise(course):
        if before.ending and before.summary and session.after == text_digest(before.summary):
            session.begins = SessionBegins(session.number, before.summary)
        else:
            _forget(session)


def _forget(session: SimulatedSession) -> None:
    session.turns.clear()
    session.ids.clear()
    session.marks.clear()
    session.ending = session.error = None
    session.summary = session.after = ""


def _to_resume(event: Mapping[str, Any]) -> bool:
    """Return whether a session that ended so is taken up again. Older versions called a patient's empty answer an
    ending, not a failure."""
    silent = (event["ending"], event.get("error")) == ("empty_turn", SILENT_PATIENT)
    return event["ending"] in FAILURES or silent
