"""Write sessions in our own layout, as OpenAI ``messages`` or as ShareGPT ``conversations``.

What is written reads back as the same sessions, whatever the layout. Sessions stream through; the file or folder is
there whole at the end or not at all.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError, nearest
from cbtrain.files import atomic_file, atomic_folder
from cbtrain.transcripts.profile import PROFILE_SCHEMA, Profile
from cbtrain.transcripts.readers.canonical import SESSION_SCHEMA
from cbtrain.transcripts.source import suffix_of
from cbtrain.transcripts.types import Corpus, Session, Turn


def session_record(session: Session) -> dict[str, Any]:
    """Return a line of ``sessions.jsonl``, schema ``cbtrain.session/1``."""
    turns = [{"role": turn.role, "text": turn.text, **_weight(turn)} for turn in session.turns]
    record = {"schema": SESSION_SCHEMA, "course": session.course, "session": session.number, "turns": turns}
    return record | _besides(session, session.facts)


def messages_record(session: Session) -> dict[str, Any]:
    """Return a record in the layout of OpenAI's fine-tuning files, the session's place in its course added."""
    roles = {"patient": "user", "therapist": "assistant"}
    return _chat_record(session, "messages", "role", "content", roles)


def sharegpt_record(session: Session) -> dict[str, Any]:
    """Return a record in ShareGPT's layout, the session's place in its course added."""
    return _chat_record(session, "conversations", "from", "value", {"patient": "human", "therapist": "gpt"})


RECORDS: dict[str, tuple[Callable[[Session], dict[str, Any]], str]] = {
    "cbtrain": (session_record, "sessions.jsonl"),
    "messages": (messages_record, "messages.jsonl"),
    "sharegpt": (sharegpt_record, "sharegpt.jsonl"),
}
"""Each layout's record and the name of its file in a folder."""


def write_sessions(
    sessions: Iterable[Session], profiles: Iterable[Profile], path: Path, layout: str = "cbtrain"
) -> int:
    """Write ``sessions`` to ``path``: a file if it ends in ``.jsonl`` (or ``.jsonl.gz``), else a folder with the
    profiles beside them. Returns the number of sessions.

    Raises UserError on an unknown layout, and whatever reading ``sessions`` raises; nothing is left behind then.
    """
    if layout not in RECORDS:
        raise UserError(f"unknown layout {layout!r}", where="corpus", hint=nearest(layout, RECORDS))
    record, name = RECORDS[layout]
    if suffix_of(path) == ".jsonl":
        with atomic_file(path) as temporary:
            return _write_lines(temporary, map(record, sessions), compressed=path.name.lower().endswith(".gz"))
    with atomic_folder(path) as temporary:
        written = _write_lines(temporary / name, map(record, sessions))
        lines = [{"schema": PROFILE_SCHEMA, **profile.model_dump()} for profile in profiles]
        if lines:
            _write_lines(temporary / "profiles.jsonl", lines)
    return written


def write_canonical(corpus: Corpus, folder: Path) -> None:
    """Write ``sessions.jsonl`` and, if there are profiles, ``profiles.jsonl``."""
    write_sessions(corpus.sessions(), [course.profile for course in corpus.courses if course.profile], folder)


def _write_lines(path: Path, records: Iterable[dict[str, Any]], *, compressed: bool = False) -> int:
    count = 0
    # A fixed time stamp: the same sessions give the same bytes.
    with path.open("wb") as raw:
        file = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if compressed else raw
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            count += 1
        if compressed:
            file.close()
    return count


def _chat_record(session: Session, messages: str, role: str, text: str, roles: dict[str, str]) -> dict[str, Any]:
    facts = dict(session.facts)
    chat: list[dict[str, Any]] = [{role: "system", text: facts.pop("system")}] if "system" in facts else []
    chat += [{role: roles[turn.role], text: turn.text, **_weight(turn)} for turn in session.turns]
    record = {"course": session.course, "session": session.number, messages: chat}
    return record | _besides(session, facts)


def _weight(turn: Turn) -> dict[str, float]:
    """Return the weight of a turn that has one of its own, as OpenAI's fine-tuning files have it."""
    return {} if turn.weight == 1 else {"weight": turn.weight}


def _besides(session: Session, facts: dict[str, str]) -> dict[str, Any]:
    """Return the keys that few sessions have."""
    besides = {"patient": session.patient, "preamble": session.preamble, "facts": facts}
    return {key: value for key, value in besides.items() if value}
