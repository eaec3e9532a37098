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
from cbtrain.transcripts.readers.canonical import (
    PAIR_SCHEMA,
    PROFILES,
    SESSION_SCHEMA,
    TurnRecord,
    file_of,
    parse_line,
    turns_of,
)
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import read_records, stem_of
from cbtrain.transcripts.types import Session

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
    file = file_of(path, PAIRS)
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
    if content.get("schema") == SESSION_SCHEMA:
        raise UserError("a session among pairs of answers", where=where, hint="Put sessions into a file of their own.")
    return parse_line(PairRecord, PAIR_SCHEMA, content, where)


def _session(record: PairRecord, where: str, name: str) -> Session:
    facts = record.facts | ({"system": record.system} if record.system else {})
    session = Session(name, 1, turns_of(record.prompt), where, record.patient, facts=facts)
    return pair_session(session, turns_of(record.chosen), turns_of(record.rejected), record.weight)
