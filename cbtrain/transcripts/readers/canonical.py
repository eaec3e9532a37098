"""Our own layout: one session a line of JSON, and the patients' profiles beside it.

``sessions.jsonl``: ``{"schema": "cbtrain.session/1", "course": "amara", "session": 1, "turns": [{"role": "patient",
"text": "…"}, …]}``, optionally a turn's ``weight`` in the loss, ``patient`` (who is treated, where that is not the
course), ``preamble`` and ``facts`` (texts by name); ``profiles.jsonl``: ``{"schema": "cbtrain.profile/1", "course":
"amara", "name": …, "brief": …, "text": …, "characteristics": {…}}``. A single ``.jsonl`` file holds sessions only.
``.gz`` is read directly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError
from cbtrain.transcripts.profile import PROFILE_SCHEMA, Profile, parse_profile
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import read_records, validate
from cbtrain.transcripts.types import Session, Turn

SESSIONS = ("sessions.jsonl", "sessions.jsonl.gz")
SESSION_SCHEMA = "cbtrain.session/1"
PAIR_SCHEMA = "cbtrain.pair/1"
PROFILES = ("profiles.jsonl", "profiles.jsonl.gz")
"""Profiles beside the sessions of any JSON format."""


Record = TypeVar("Record", bound=BaseModel)


class TurnRecord(BaseModel):
    """A turn of a session or a pair."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["patient", "therapist"]
    text: str
    weight: float = Field(1, ge=0, le=1000)


class SessionRecord(BaseModel):
    """A line of ``sessions.jsonl`` without its ``schema`` key."""

    model_config = ConfigDict(extra="forbid")

    course: str = Field(min_length=1)
    session: int = Field(ge=0)
    turns: list[TurnRecord]
    patient: str = ""
    preamble: str = ""
    facts: dict[str, str] = Field(default_factory=dict)


def detects(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in SESSIONS)


def sessions(path: Path, options: ReadOptions) -> Iterator[Session]:
    """Yield the sessions of a file or folder, in the order of the lines."""
    for where, content in read_records(file_of(path, SESSIONS), options.on_bad):
        try:
            record = parse_record(content, where)
        except UserError as error:
            options.on_bad(error)
            continue
        turns = turns_of(record.turns)
        yield Session(record.course, record.session, turns, where, record.patient, record.preamble, facts=record.facts)


def profiles(path: Path, options: ReadOptions) -> dict[str, Profile]:
    return read_profiles(path, options)


def parse_record(content: dict[str, Any], where: object) -> SessionRecord:
    """Return ``content`` as a session. Raises UserError on another schema, and on unknown, missing or wrong keys."""
    if content.get("schema") == PAIR_SCHEMA:
        raise UserError("a pair of answers among sessions", where=where, hint="Put pairs into a file of their own.")
    return parse_line(SessionRecord, SESSION_SCHEMA, content, where)


def parse_line(kind: type[Record], schema: str, content: dict[str, Any], where: object) -> Record:
    """Return ``content``, a line with this ``schema``, as a record of ``kind``. Raises UserError as
    :func:`parse_record`."""
    content = dict(content)
    found = content.pop("schema", None)
    if found != schema:
        hint = f'Each line is an object with "schema": "{schema}".'
        raise UserError(f"schema {found!r} is not {schema!r}", where=where, hint=hint)
    return validate(kind, content, where, "`cbtrain corpus schema` prints the schema.")


def turns_of(records: Sequence[TurnRecord]) -> tuple[Turn, ...]:
    return tuple(Turn(turn.role, turn.text, turn.weight) for turn in records)


def file_of(path: Path, names: Sequence[str]) -> Path:
    """Return ``path``, or the first file of these ``names`` in it if it is a folder. Raises UserError if there is
    none."""
    if not path.is_dir():
        return path
    for name in names:
        if (path / name).exists() or (path / name).is_symlink():
            return path / name
    raise UserError(f"no {names[0]} in it", where=path, hint="Name a folder that has one, or another --format.")


def read_profiles(folder: Path, options: ReadOptions) -> dict[str, Profile]:
    """Profiles by course, none where ``folder`` is a file or has none. A second one for a course is a fault."""
    profiles: dict[str, Profile] = {}
    for file in (folder / name for name in PROFILES if folder.is_dir() and (folder / name).exists()):
        for where, content in read_records(file, options.on_bad):
            try:
                schema = content.pop("schema", None)
                if schema != PROFILE_SCHEMA:
                    hint = f'Each line is an object with "schema": "{PROFILE_SCHEMA}".'
                    raise UserError(f"schema {schema!r} is not {PROFILE_SCHEMA!r}", where=where, hint=hint)
                profile = parse_profile(content, where)
                if profile.course in profiles:
                    problem = f"course {profile.course!r} has a profile already"
                    raise UserError(problem, where=where, hint="Remove one of them.")
                profiles[profile.course] = profile
            except UserError as error:
                options.on_bad(error)
    return profiles
