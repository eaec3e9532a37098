"""Real traffic on record, without what is secret, and served back: for tests, and to repeat a run without an API."""

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
from cbtrain.providers.caching.cache import request_key
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.api_format import ApiFormat, WireRequest
from cbtrain.providers.redaction import redacted_texts
from cbtrain.providers.transport import Reply, Transport
from cbtrain.providers.types import ChatRequest

KEPT = re.compile(r"^(content-type|retry-after[\w-]{0,80}|(x|anthropic)-ratelimit-[\w-]{0,80})$")
"""Headers of replies that are recorded: others name accounts, cookies and machines."""


class Recorder:
    """A carrier that writes down what another one brings, a line of JSON for each exchange.

    Keys are neither in what is recorded of a request (its own headers and body) nor, should an API send one back, in
    the reply: every value of the secret headers is taken out. What cannot be written down (a full disk) is missing in
    the recording, of which ``warn`` is told each time, and not in the run.
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

    async def post(self, made: WireRequest, secret: Mapping[str, str]) -> Reply:
        reply = await self.transport.post(made, secret)
        try:
            self._write(self._line(made, secret, reply))
        except OSError as error:
            self.warn(f"{self.path} has gaps: it cannot be written ({error.strerror}), and the run goes on without")
        return reply

    def _line(self, made: WireRequest, secret: Mapping[str, str], reply: Reply) -> bytes:
        # Headers may name a scheme before the key.
        keys = {key for value in secret.values() for key in (value, value.rpartition(" ")[2])}
        exchange = {
            "url": made.url,
            "body": made.body,
            "status": reply.status,
            "headers": {name: value for name, value in reply.headers.items() if KEPT.match(name.lower())},
            "reply": reply.body.decode(errors="replace"),
        }
        line = {"key": request_key(made)} | redacted_texts(exchange, keys)
        return (json.dumps(line, ensure_ascii=False) + "\n").encode(errors="replace")

    def _write(self, line: bytes) -> None:
        if self._file is None:
            raise RuntimeError("enter the recorder with `with` first")
        append_whole(self._file, line, self.path)


def open_recording(path: Path) -> int:
    """A file to add to, readable for its owner alone: it holds what patients said. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    except OSError as error:
        hint = "Name another file (providers.record)."
        raise UserError(f"cannot be written ({error.strerror})", where=path, hint=hint) from None


class Replay:
    """A carrier that answers from a recording, by the request; the same request again gets the next answer on record to
    it, and the last one for ever after. Failures that an answer came after are passed over. Raises UserError where the
    recording cannot be read."""

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

    async def post(self, made: WireRequest, secret: Mapping[str, str]) -> Reply:
        replies = self._replies.get(request_key(made))
        if not replies:
            raise ProviderError("permanent", f"this request is not on record in {self.path.name}")
        return replies.popleft() if len(replies) > 1 else replies[0]

    def knows(self, api_format: ApiFormat) -> bool:
        """Whether the model at the address of ``api_format`` was asked anything."""
        made = api_format.request(ChatRequest((), max_tokens=1))
        return any((one.url, one.body.get("model")) in self._asked for one in (made, api_format.streamed(made)))

    def _keep(self, line: str, number: int) -> None:
        try:
            found: dict[str, Any] = json.loads(line)
            reply = Reply(int(found["status"]), CIMultiDict(found["headers"]), str(found["reply"]).encode())
            self._asked.add((str(found["url"]), found["body"].get("model")))
            replies = self._replies[str(found["key"])]
            while reply.status == 200 and replies and replies[-1].status != 200:
                replies.pop()
            replies.append(reply)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                "not a line of a recording", where=f"{self.path}:{number}", hint="Record it anew."
            ) from None
