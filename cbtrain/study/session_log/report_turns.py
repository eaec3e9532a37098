"""Add to a report how each turn came about: its facts, the request as it was sent, and the raw reply if it differs."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.report.schema.report import Report, ReportTurn
from cbtrain.providers.exchanges.reading import Exchange, reply_text
from cbtrain.study.run_files import EVENTS
from cbtrain.study.session_log.sessions import LoggedSession, LoggedTurn, read_requests, read_sessions

NOT_SHOWN = {"requests", "system", "raw", "drawn", "role"}
"""Facts that are long, or names in files."""

RAW_SHARE = 8
"""What raw replies have more than their turns takes at most an eighth of the room of a session's words; what does not
fit is left to ``cbtrain show``."""

LISTS = ("messages", "contents")
"""Fields of a request's body that hold the dialogue."""

SEEDS = (("seed",), ("generationConfig", "seed"))
"""Where a request's body has the seed, which each turn has of its own."""


def with_requests(report: Report, folder: Path) -> Report:
    """Return ``report`` with what the journal of the run in ``folder`` has on the turns of its sessions. A request is
    stored without the turns before it: they are in the report. What cannot be read is left out."""
    if not (folder / EVENTS).is_file():
        return report
    frames = _Frames()
    try:
        logged = read_sessions(folder)
        names = [name for session in report.sessions if session.id in logged for name in logged[session.id].requests]
        requests = read_requests(folder, names)
    except UserError:
        return report
    for session in report.sessions:
        if session.id not in logged:
            continue
        log = logged[session.id]
        room = sum(len(turn.text) for turn in session.turns) // RAW_SHARE
        for turn, said in zip(session.turns, log.turns, strict=False):
            if turn.text != said.text or not said.facts:
                continue
            turn.facts = {name: value for name, value in said.facts.items() if name not in NOT_SHOWN}
            answered = [exchange for exchange in requests.of(said.requests) if not exchange.problem]
            frame = _frame(log, said, answered, session.turns)
            if frame is not None:
                turn.request = frames.number(frame)
            raw = reply_text(answered[-1]) if answered else said.facts.get("raw")
            if raw and raw.strip() != turn.text:
                more = len(raw) - (len(turn.text) if turn.text in raw else 0)
                if more <= room:
                    turn.raw, room = raw, room - more
    return report.updated(Report(requests=frames.frames))


class _Frames:
    """Requests without the turns before them, each once."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}

    def number(self, frame: dict[str, Any]) -> int:
        text = json.dumps(frame)
        if text not in self._numbers:
            self._numbers[text] = len(self.frames)
            self.frames.append(frame)
        return self._numbers[text]


def _frame(
    session: LoggedSession, turn: LoggedTurn, answered: Sequence[Exchange], turns: Sequence[ReportTurn]
) -> dict[str, Any] | None:
    """Return the request that ``turn`` answers, without ``turns``; None if it is not known, or does not end with what
    was said before."""
    if "model" not in turn.facts:
        system, sampling = session.system_of(turn.role), session.settings_of(turn.role).get("sampling")
        return None if system is None else {"local": {"system prompt": system, "sampling": sampling}}
    body = answered[-1].body if answered else None
    if body is None:
        return None
    field = next((name for name in LISTS if isinstance(body.get(name), list)), None)
    if field is None:
        return None
    messages, seen, lead = body[field], 0, ""
    while seen < min(turn.index, len(messages)) and not lead:
        before, message = turns[turn.index - seen - 1], messages[-seen - 1]
        if message != _message(field, turn.role, before):
            lead = _lead(field, turn.role, before, message)
            if not lead:
                break
        seen += 1
    if seen == 0 and turn.index:
        return None
    body = copy.deepcopy({name: value for name, value in body.items() if name != field} | {field: []})
    body = {name: body[name] for name in answered[-1].body or {}}
    frame = {
        "url": answered[-1].url,
        "role": turn.role,
        "field": field,
        "head": messages[: len(messages) - seen],
        "seen": None if seen == turn.index else seen,
        "lead": lead,
        "body": body,
    }
    for *sections, name in SEEDS:
        section: Any = body
        for part in sections:
            section = section.get(part, {})
        if isinstance(section, dict) and section.get(name) == turn.facts.get("seed", object()):
            section[name] = None
            frame["seed"] = [*sections, name]
    return frame


def _message(field: str, speaker: str, turn: ReportTurn, lead: str = "") -> dict[str, Any]:
    """Return ``turn`` as a message of the API that has ``field``, as the browser of the report does."""
    own, text = turn.role == speaker, f"{lead}{turn.text}"
    if field == "contents":
        return {"role": "model" if own else "user", "parts": [{"text": text}]}
    return {"role": "assistant" if own else "user", "content": text}


def _lead(field: str, speaker: str, turn: ReportTurn, message: Any) -> str:
    """Return what stands before the words of ``turn`` in ``message`` (that earlier turns are left out); "" if it is not
    that turn."""
    if not isinstance(message, Mapping):
        return ""
    parts = message.get("parts")
    text = message.get("content")
    if isinstance(parts, list) and parts and isinstance(parts[0], Mapping):
        text = parts[0].get("text")
    if not isinstance(text, str) or not turn.text or not text.endswith(turn.text):
        return ""
    lead = text[: -len(turn.text)]
    return lead if message == _message(field, speaker, turn, lead) else ""
