"""Write sessions in our own layout, as OpenAI ``messages`` or as ShareGPT ``conversations``; pairs of answers in ours
or in TRL's.

What is written reads back as the same sessions, whatever the layout. Sessions stream through; the file or folder is
there whole at the end or not at all.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError, nearest
from cbtrain.files import atomic_file, atomic_folder
from cbtrain.transcripts.profile import PROFILE_SCHEMA, Profile
from cbtrain.transcripts.readers.canonical import PAIR_SCHEMA, SESSION_SCHEMA
from cbtrain.transcripts.source import suffix_of
from cbtrain.transcripts.types import Corpus, Preference, Session, Turn


def session_record(session: Session) -> dict[str, Any]:
    """Return a line of ``sessions.jsonl``, schema ``cbtrain.session/1``. Raises UserError on a pair of answers."""
    _refuse_kind(session, pair=False)
    turns = _turns(session.turns)
    record = {"schema": SESSION_SCHEMA, "course": session.course, "session": session.number, "turns": turns}
    return record | _besides(session, session.facts)


def pair_record(session: Session) -> dict[str, Any]:
    """Return a line of ``pairs.jsonl``, schema ``cbtrain.pair/1``. Raises UserError on a session that is no pair."""
    preference = _refuse_kind(session, pair=True)
    facts = dict(session.facts)
    system = facts.pop("system", "")
    besides = {"weight": preference.weight if preference.weight != 1 else None, "system": system, "facts": facts}
    return {
        "schema": PAIR_SCHEMA,
        "id": session.course,
        **({"patient": session.patient} if session.patient else {}),
        "prompt": _turns(session.turns[: preference.begin], weights=False),
        "chosen": _turns(session.turns[preference.begin :]),
        "rejected": _turns(preference.rejected),
        **{key: value for key, value in besides.items() if value},
    }


def preference_record(session: Session) -> dict[str, Any]:
    """Return a pair in TRL's layout with an explicit prompt of messages. Raises UserError on a session that is no
    pair."""
    preference = _refuse_kind(session, pair=True)
    roles, facts = {"patient": "user", "therapist": "assistant"}, dict(session.facts)
    system = [{"role": "system", "content": facts.pop("system")}] if "system" in facts else []

    def messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
        return [{"role": roles[turn.role], "content": turn.text} for turn in turns]

    return {
        "id": session.course,
        **({"patient": session.patient} if session.patient else {}),
        "prompt": system + messages(session.turns[: preference.begin]),
        "chosen": messages(session.turns[preference.begin :]),
        "rejected": messages(preference.rejected),
        **({"weight": preference.weight} if preference.weight != 1 else {}),
        **({"facts": facts} if facts else {}),
    }


def record_of(session: Session) -> dict[str, Any]:
    """Return a session or a pair of answers in our own layout."""
    return session_record(session) if session.preference is None else pair_record(session)


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

PAIR_RECORDS: dict[str, tuple[Callable[[Session], dict[str, Any]], str]] = {
    "cbtrain": (pair_record, "pairs.jsonl"),
    "messages": (preference_record, "preferences.jsonl"),
}
"""The same of pairs of answers."""


def write_sessions(
    sessions: Iterable[Session], profiles: Iterable[Profile], path: Path, layout: str = "cbtrain"
) -> int:
    """Write ``sessions``, or pairs of answers, to ``path``: a file if it ends in ``.jsonl`` (or ``.jsonl.gz``), else a
    folder with the profiles beside them. Returns the number of sessions.

    Raises UserError on an unknown layout, on sessions and pairs in one file, and whatever reading ``sessions`` raises;
    nothing is left behind then.
    """
    if layout not in RECORDS:
        raise UserError(f"unknown layout {layout!r}", where="corpus", hint=nearest(layout, RECORDS))
    sessions = iter(sessions)
    first = list(islice(sessions, 1))
    sessions = chain(first, sessions)
    are_pairs = bool(first) and first[0].preference is not None
    if are_pairs and layout not in PAIR_RECORDS:
        hint = f"Choose {' or '.join(PAIR_RECORDS)}."
        raise UserError(f"pairs of answers cannot be written as {layout}", where="corpus", hint=hint)
    record, name = (PAIR_RECORDS if are_pairs else RECORDS)[layout]
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
    """Write ``sessions.jsonl`` (``pairs.jsonl`` if it holds pairs) and, if there are profiles, ``profiles.jsonl``."""
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


def _refuse_kind(session: Session, *, pair: bool) -> Preference:
    """Return what makes ``session`` a pair. Raises UserError if it is one and should not be, or the other way round."""
    if (session.preference is not None) != pair:
        what = "a session among pairs of answers" if pair else "a pair of answers among sessions"
        hint = "Write pairs and sessions into files of their own."
        raise UserError(what, where=session.where or session.id, hint=hint)
    return session.preference or Preference(0, ())


def _turns(turns: Iterable[Turn], *, weights: bool = True) -> list[dict[str, Any]]:
    return [{"role": turn.role, "text": turn.text, **(_weight(turn) if weights else {})} for turn in turns]


def _chat_record(session: Session, messages: str, role: str, text: str, roles: dict[str, str]) -> dict[str, Any]:
    _refuse_kind(session, pair=False)
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
