"""Our own layout: one session a line of JSON, and the patients' profiles beside it.

``sessions.jsonl``: ``{"schema": "cbtrain.session/1", "course": "amara", "session": 1, "turns": [{"role": "patient",
"text": "…"}, …]}``; ``profiles.jsonl`` (optional): ``{"schema": "cbtrain.profile/1", "course": "amara", "name": …,
"brief": …, "text": …, "characteristics": {…}}``. A single ``.jsonl`` file holds sessions only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cbtrain.errors import UserError
from cbtrain.files import atomic_folder
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Corpus, Course, Session, Turn

SESSIONS, PROFILES = "sessions.jsonl", "profiles.jsonl"
SESSION_SCHEMA, PROFILE_SCHEMA = "cbtrain.session/1", "cbtrain.profile/1"


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["patient", "therapist"]
    text: str


class _SessionLine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    course: str = Field(min_length=1)
    session: int = Field(ge=1)
    turns: list[_Turn]


def is_canonical(path: Path) -> bool:
    return path.suffix == ".jsonl" or (path / SESSIONS).exists()


def read_canonical(path: Path) -> Corpus:
    """A corpus in our layout: courses in the order of their first line, sessions by number.

    Raises UserError with file and line on malformed JSON, another schema, unknown or missing keys, and on a session or
    profile that stands there twice.
    """
    file = path / SESSIONS if path.is_dir() else path
    sessions: dict[str, dict[int, Session]] = {}
    for where, content in _lines(file, SESSION_SCHEMA):
        line = _validate(_SessionLine, content, where)
        own = sessions.setdefault(line.course, {})
        if line.session in own:
            problem = f"session {line.session} of course {line.course!r} stands at {own[line.session].where} already"
            raise UserError(problem, where=where, fix="Remove or renumber one of the two.")
        turns = tuple(Turn(turn.role, turn.text) for turn in line.turns)
        own[line.session] = Session(line.course, line.session, turns, where)
    profiles = _read_profiles(path / PROFILES) if path.is_dir() and (path / PROFILES).exists() else {}
    courses = tuple(
        Course(course, tuple(own[number] for number in sorted(own)), profiles.get(course))
        for course, own in sessions.items()
    )
    return Corpus(str(path), "cbtrain", courses)


def write_canonical(corpus: Corpus, folder: Path) -> None:
    """Write ``sessions.jsonl`` and, where there are profiles, ``profiles.jsonl``; the folder is there whole or not."""
    with atomic_folder(folder) as temporary:
        with (temporary / SESSIONS).open("w", encoding="utf-8") as file:
            for session in corpus.sessions():
                turns = [{"role": turn.role, "text": turn.text} for turn in session.turns]
                record = {"course": session.course, "session": session.number, "turns": turns}
                file.write(_dump(SESSION_SCHEMA, record))
        profiles = [course.profile for course in corpus.courses if course.profile]
        if profiles:
            with (temporary / PROFILES).open("w", encoding="utf-8") as file:
                for profile in profiles:
                    file.write(_dump(PROFILE_SCHEMA, profile.model_dump()))


def _read_profiles(file: Path) -> dict[str, Profile]:
    profiles: dict[str, Profile] = {}
    for where, content in _lines(file, PROFILE_SCHEMA):
        profile = _validate(Profile, content, where)
        if profile.course in profiles:
            raise UserError(f"course {profile.course!r} has a profile already", where=where, fix="Remove one of them.")
        profiles[profile.course] = profile
    return profiles


def _lines(file: Path, schema: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each non-blank line's place and content, its schema checked and taken off."""
    try:
        with file.open("rb") as lines:
            for number, raw in enumerate(lines, 1):
                where = f"{file}:{number}"
                if not raw.strip():
                    continue
                try:
                    content = json.loads(raw.decode("utf-8"))
                except json.JSONDecodeError as error:
                    problem = f"malformed JSON ({error.msg} at column {error.colno})"
                    raise UserError(problem, where=where, fix="Mend or remove the line.") from None
                except UnicodeDecodeError:
                    raise UserError("not UTF-8 text", where=where, fix="Convert the file.") from None
                found = content.pop("schema", None) if isinstance(content, dict) else None
                if found != schema:
                    fix = f'Each line is an object with "schema": "{schema}".'
                    raise UserError(f"schema {found!r} is not {schema!r}", where=where, fix=fix)
                yield where, content
    except (IsADirectoryError, NotADirectoryError, FileNotFoundError) as error:
        raise UserError("not a readable file", where=error.filename or file, fix="Name a .jsonl file.") from None


def _validate(model: type[Any], content: dict[str, Any], where: str) -> Any:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(problem, where=where, fix="See the schema in the documentation.") from None


def _dump(schema: str, record: dict[str, Any]) -> str:
    return json.dumps({"schema": schema, **record}, ensure_ascii=False) + "\n"
