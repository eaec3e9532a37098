"""Readers for the two common chat layouts, which differ in the names of their keys only.

OpenAI ``messages``: ``{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}``.
ShareGPT: ``{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}``.

The user is the patient, the assistant the therapist, and system messages are kept in ``facts["system"]``. ``course``,
``session``, ``patient``, ``preamble`` and ``facts`` are read where our own writer put them; other records are a course
each, called by their ``id`` or their place in the file. ``.jsonl`` (one record a line) or ``.json`` (one array).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.readers.canonical import PROFILES, read_profiles
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import files_in, read_records, stem_of
from cbtrain.transcripts.types import Role, Session, Turn

SUFFIXES = (".jsonl", ".json")
IDS = ("course", "id", "conversation_id", "conversation_hash", "uuid")


@dataclass(frozen=True, slots=True)
class ChatLayout:
    """Where a layout keeps what; ``roles`` maps its names of speakers to ours, None for a system message."""

    messages: str
    role: str
    text: str
    roles: Mapping[str, Role | None]


MESSAGES = ChatLayout(
    "messages",
    "role",
    "content",
    {"user": "patient", "assistant": "therapist", "system": None, "developer": None},
)
SHAREGPT = ChatLayout(
    "conversations",
    "from",
    "value",
    {
        "human": "patient",
        "user": "patient",
        "gpt": "therapist",
        "assistant": "therapist",
        "chatgpt": "therapist",
        "model": "therapist",
        "system": None,
    },
)


def sessions(path: Path, options: ReadOptions, layout: ChatLayout) -> Iterator[Session]:
    """Yield the sessions of a file, or of all ``.jsonl`` and ``.json`` files under a folder."""
    for file in record_files(path):
        name = stem_of(file) if not path.is_dir() else file.relative_to(path).as_posix()
        for number, (where, content) in enumerate(read_records(file, options.on_bad), 1):
            try:
                yield parse_chat(content, f"{name}-{number}", where, layout)
            except UserError as error:
                options.on_bad(error)


def profiles(path: Path, options: ReadOptions) -> dict[str, Profile]:
    return read_profiles(path, options)


def record_files(path: Path) -> list[Path]:
    return [file for file in files_in(path, SUFFIXES) if file.name not in PROFILES] if path.is_dir() else [path]


def parse_chat(content: dict[str, Any], fallback: str, where: str, layout: ChatLayout) -> Session:
    """Return one record as a session. Raises UserError on a missing list, an unknown role, or content that is no
    text."""
    messages = content.get(layout.messages)
    if not isinstance(messages, list):
        raise UserError(f"no list of {layout.messages!r}", where=where, hint="Correct it, or choose another --format.")
    turns, system = [], []
    for index, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            raise UserError(f"message {index} is not an object", where=where, hint="Correct or remove it.")
        role_name = message.get(layout.role)
        if not isinstance(role_name, str) or role_name not in layout.roles:
            roles = ", ".join(layout.roles)
            problem = f"message {index}: {layout.role} {role_name!r} is not one of {roles}"
            raise UserError(problem, where=where, hint="Correct it.")
        text, role = _text(message.get(layout.text), index, where, layout), layout.roles[role_name]
        if role is None:
            system.append(text)
        else:
            turns.append(Turn(role, text))
    facts = _facts(content.get("facts", {}), where)
    if system:
        facts["system"] = "\n\n".join(system)
    course = next((str(content[key]) for key in IDS if content.get(key) not in (None, "")), fallback)
    return Session(
        course,
        _number(content.get("session", 1), where),
        tuple(turns),
        where,
        _string(content, "patient", where),
        _string(content, "preamble", where),
        facts=facts,
    )


def _text(value: Any, index: int, where: str, layout: ChatLayout) -> str:
    if isinstance(value, list):  # content in parts, as the OpenAI protocol allows
        if all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in value):
            return "".join(part["text"] for part in value)
        raise UserError(f"message {index} has parts that are not text", where=where, hint="Remove them.")
    if not isinstance(value, str):
        raise UserError(f"message {index}: {layout.text} is not a text", where=where, hint="Correct or remove it.")
    return value


def _number(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"session {value!r} is not a whole number from 0", where=where, hint="Correct or remove it.")
    return value


def _string(content: dict[str, Any], key: str, where: str) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise UserError(f"{key} is not a text", where=where, hint="Correct or remove it.")
    return value


def _facts(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise UserError("facts are not texts by name", where=where, hint="Give each fact a text, or remove them.")
    return dict(value)
