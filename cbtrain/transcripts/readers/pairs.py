"""Our own layout of pairs: one prompt with a chosen and a rejected answer a line of JSON.

``pairs.jsonl``: ``{"schema": "cbtrain.pair/1", "id": "p1", "patient": "amara", "prompt": [{"role": "patient", "text":
"…"}, …], "chosen": [{"role": "therapist", "text": "…"}], "rejected": […]}``, optionally ``weight`` (of the pair in the
loss), ``system`` and ``facts``. Without an ``id`` a pair is called by its file and line; ``prompt`` is empty where the
therapist opens. Each pair is a course of its own; ``patient`` says whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError
from cbtrain.transcripts.preference import pair_session
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.readers.canonical import PAIR_SCHEMA, PROFILES, SESSION_SCHEMA, TurnRecord
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import read_records, stem_of, validate
from cbtrain.transcripts.types import Session, Turn

PAIRS = ("pairs.jsonl", "pairs.jsonl.gz")


class PairRecord(BaseModel):
    """A line of ``pairs.jsonl`` without its ``schema`` key."""

    model_config = ConfigDict(extra="forbid")

    id: str = ""
    patient: str = ""
    prompt: list[TurnRecord] = Field(default_factory=list)
    chosen: list[TurnRecord]
    rejected: list[TurnRecord]
    weight: float = Field(1, gt=0, le=1000)
    system: str = ""
    facts: dict[str, str] = Field(default_factory=dict)


def detects(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in PAIRS)


def sessions(path: Path, options: ReadOptions) -> Iterator[Session]:
    """Yield the pairs of a file or folder as sessions, in the order of the lines."""
    file = _file(path)
    if unused := [name for name in PROFILES if path.is_dir() and (path / name).exists()]:
        options.note("files of profiles: pairs need none", len(unused), unused[0])
    for where, content in read_records(file, options.on_bad):
        try:
            record = parse_record(content, where)
            line = where.removeprefix(str(file)).strip(":[]")
            yield _session(record, where, record.id or f"{stem_of(file)}-{line or 1}")
        except UserError as error:
            options.on_bad(error)


def profiles(path: Path, options: ReadOptions) -> dict[str, Profile]:
    """Return nothing: a profile belongs to a course, and each pair is a course of its own."""
    return {}


def parse_record(content: dict[str, Any], where: object) -> PairRecord:
    """Return ``content`` as a pair. Raises UserError on another schema, and on unknown, missing or wrong keys."""
    content = dict(content)
    schema = content.pop("schema", None)
    if schema == SESSION_SCHEMA:
        raise UserError("a session among pairs of answers", where=where, hint="Put sessions into a file of their own.")
    if schema != PAIR_SCHEMA:
        hint = f'Each line is an object with "schema": "{PAIR_SCHEMA}".'
        raise UserError(f"schema {schema!r} is not {PAIR_SCHEMA!r}", where=where, hint=hint)
    return validate(PairRecord, content, where, "`cbtrain corpus schema` prints the schema.")


def _session(record: PairRecord, where: str, name: str) -> Session:
    facts = record.facts | ({"system": record.system} if record.system else {})
    session = Session(name, 1, _turns(record.prompt), where, record.patient, facts=facts)
    return pair_session(session, _turns(record.chosen), _turns(record.rejected), record.weight)


def _turns(turns: list[TurnRecord]) -> tuple[Turn, ...]:
    return tuple(Turn(turn.role, turn.text, turn.weight) for turn in turns)


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in PAIRS:
        if (path / name).exists() or (path / name).is_symlink():
            return path / name
    raise UserError(f"no {PAIRS[0]} in it", where=path, hint="Name a folder that has one, or another --format.")
