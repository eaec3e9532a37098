"""Read what was asked and answered from a run's ``requests.jsonl``, also while the run writes to it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.journal import Record, parse_line
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.exchanges.folding import unfold
from cbtrain.providers.formats.anthropic import AnthropicFormat
from cbtrain.providers.formats.api_format import ApiFormat
from cbtrain.providers.formats.gemini import GeminiFormat
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.formats.stream import STREAM, events_of

START = b'{"request": "'
"""Of every line: requests are looked for here, so that only those that are wanted are parsed."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One attempt at a request. ``body`` is None if the lines that hold it are damaged. ``status`` and ``reply`` are
    None if nothing came back; ``problem``: why the attempt was of no use. An answer that was kept from before has
    attempt 0, and is in ``answer``."""

    request: str
    role: str
    attempt: int
    time: str
    url: str
    body: dict[str, Any] | None
    seconds: float | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reply: str | None = None
    problem: str = ""
    answer: Mapping[str, Any] | None = None

    @property
    def reused(self) -> bool:
        """Whether a kept answer was taken, and nothing sent."""
        return self.answer is not None


def read_exchanges(path: Path, requests: Collection[str]) -> tuple[dict[str, list[Exchange]], int]:
    """Return the exchanges of each of ``requests`` in the order in which they ended, and how many lines of theirs are
    damaged. A last line without an end is still being written. Raises UserError if the file cannot be read."""
    wanted = {request.encode() for request in requests}
    exchanges: dict[str, list[Exchange]] = {request: [] for request in requests}
    damaged = 0
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return exchanges, 0
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=path, hint="Restore it from a copy.") from None
    with os.fdopen(file, "rb") as lines:
        found: list[tuple[str, bytes]] = []
        for line in lines:
            request = line[len(START) : line.find(b'"', len(START))]
            if request in wanted and line.startswith(START) and line.endswith(b"\n"):
                found.append((request.decode(), line))
        cache: dict[int, tuple[dict[str, Any], list[str]]] = {}

        def read(place: int) -> tuple[dict[str, Any], list[str]]:
            if place not in cache:
                lines.seek(place)
                record = parse_line(lines.readline().rstrip(b"\n"))
                if record is None:
                    raise LookupError(place)
                cache[place] = record["body"], record.get("folded", [])
            return cache[place]

        for name, line in found:
            record = parse_line(line.rstrip(b"\n"))
            exchange = None if record is None else _exchange(record, read)
            damaged += exchange is None or exchange.body is None
            exchanges[name] += [exchange] if exchange else []
    return exchanges, damaged


def reply_text(exchange: Exchange) -> str | None:
    """Return the text of an answer before anything was taken out of it (thinking, labels), or None if there is no
    answer."""
    if exchange.answer is not None:
        return str(exchange.answer.get("text", ""))
    if exchange.reply is None or exchange.body is None:
        return None
    api_format: ApiFormat = OpenAIFormat(exchange.url, "")
    if "contents" in exchange.body:
        api_format = GeminiFormat("")
    elif exchange.url.endswith("/messages"):
        api_format = AnthropicFormat("")
    try:
        streamed = STREAM.match(exchange.reply)
        reply = api_format.assemble_stream(events_of(exchange.reply)) if streamed else json.loads(exchange.reply)
        return api_format.answer(reply).text
    except (ProviderError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _exchange(record: Record, read: Any) -> Exchange | None:
    try:
        try:
            body = unfold(record["body"], record.get("folded", []), read)
        except (LookupError, TypeError, AttributeError):
            body = None
        return Exchange(
            request=record["request"],
            role=str(record["role"]),
            attempt=int(record["attempt"]),
            time=str(record["time"]),
            url=str(record["url"]),
            body=body,
            seconds=record.get("seconds"),
            status=record.get("status"),
            headers=record.get("headers", {}),
            reply=record.get("reply"),
            problem=record.get("problem", ""),
            answer=record.get("answer"),
        )
    except (KeyError, TypeError, ValueError):
        return None
