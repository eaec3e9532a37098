"""Record the traffic with APIs, without keys, and replay it: for tests, and to repeat a run without an API."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from multidict import CIMultiDict

from cbtrain.errors import UserError
from cbtrain.files import append_whole
from cbtrain.journal import parse_line, with_checksum
from cbtrain.providers.caching.cache import request_key
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.api_format import ApiFormat, WireRequest
from cbtrain.providers.redaction import redacted_texts
from cbtrain.providers.transport import Arriving, Reply, Transport
from cbtrain.providers.types import ChatRequest

KEPT = re.compile(r"^(content-type|retry-after[\w-]{0,80}|(x|anthropic)-ratelimit-[\w-]{0,80})$")
"""Headers of replies that are recorded: others name accounts, cookies and machines."""


class Recorder:
    """A transport that sends requests by another one and records each exchange as a line of JSON.

    The recording holds no key: secret headers are not recorded, and their values are removed from bodies and replies.
    An exchange that cannot be written (a full disk, say) is missing in the recording, and ``warn(text)`` is called; the
    run continues.
    """

    def __init__(self, transport: Transport, path: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self.transport, self.path, self.warn = transport, path, warn
        self._file: int | None = None

    def __enter__(self) -> Recorder:
        self._file = open_recording(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # everything was written, or told of, before
                os.close(self._file)

    async def post(
        self, wire_request: WireRequest, secret: Mapping[str, str], arriving: Arriving | None = None
    ) -> Reply:
        reply = await self.transport.post(wire_request, secret, arriving)
        try:
            self._write(self._line(wire_request, secret, reply))
        except OSError as error:
            self.warn(f"{self.path} is incomplete: it cannot be written ({error.strerror}). The run continues")
        return reply

    def _line(self, wire_request: WireRequest, secret: Mapping[str, str], reply: Reply) -> bytes:
        # Headers may name a scheme before the key.
        keys = {key for value in secret.values() for key in (value, value.rpartition(" ")[2])}
        exchange = {
            "url": wire_request.url,
            "body": wire_request.body,
            "status": reply.status,
            "headers": kept_headers(reply),
            "reply": reply.body.decode(errors="replace"),
        }
        line = {"key": request_key(wire_request)} | redacted_texts(exchange, keys)
        return with_checksum(json.dumps(line, ensure_ascii=False).encode(errors="replace")) + b"\n"

    def _write(self, line: bytes) -> None:
        if self._file is None:
            raise RuntimeError("enter the recorder with `with` first")
        append_whole(self._file, line, self.path)


def kept_headers(reply: Reply) -> dict[str, str]:
    """Return the headers of ``reply`` that are recorded."""
    return {name: value for name, value in reply.headers.items() if KEPT.match(name.lower())}


def open_recording(path: Path) -> int:
    """Open a recording to append to, readable only by its owner: it holds what patients said. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    except OSError as error:
        hint = "Name another file (providers.record)."
        raise UserError(f"cannot be written ({error.strerror})", where=path, hint=hint) from None


class Replay:
    """A transport that answers from a recording. The same request again gets the next recorded answer to it, and the
    last one from then on. Failures that were followed by an answer are skipped. Raises UserError if the recording
    cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._replies: dict[str, deque[Reply]] = defaultdict(deque)
        self._asked: set[tuple[str, Any]] = set()
        try:
            *lines, torn = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot be read ({error})", where=path, hint="Name a recording.") from None
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._keep(line, number)
        with contextlib.suppress(UserError):  # a kill may have torn it
            self._keep(torn, len(lines) + 1)

    async def post(
        self, wire_request: WireRequest, secret: Mapping[str, str], arriving: Arriving | None = None
    ) -> Reply:
        replies = self._replies.get(request_key(wire_request))
        if not replies:
            raise ProviderError("permanent", f"this request is not in the recording {self.path.name}")
        return replies.popleft() if len(replies) > 1 else replies[0]

    def knows(self, api_format: ApiFormat) -> bool:
        """Return whether the recording has a request to the model at the address of ``api_format``."""
        whole = api_format.request(ChatRequest((), max_tokens=1))
        either = (whole, api_format.streamed(whole))
        return any((wire_request.url, wire_request.body.get("model")) in self._asked for wire_request in either)

    def _keep(self, line: str, number: int) -> None:
        try:
            exchange = parse_line(line.encode()) or {}
            reply = Reply(int(exchange["status"]), CIMultiDict(exchange["headers"]), str(exchange["reply"]).encode())
            self._asked.add((str(exchange["url"]), exchange["body"].get("model")))
            replies = self._replies[str(exchange["key"])]
            while reply.succeeded and replies and not replies[-1].succeeded:
                replies.pop()
            replies.append(reply)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                "not a line of a recording", where=f"{self.path}:{number}", hint="Record it again."
            ) from None
