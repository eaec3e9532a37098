"""Real traffic on record, without what is secret, and served back: for tests, and to repeat a run without an API."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from multidict import CIMultiDict

from cbtrain.errors import UserError
from cbtrain.providers.attempt import SHORTEST_KEY
from cbtrain.providers.caching.key import request_key
from cbtrain.providers.carrier import Carrier, Reply
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.wires.wire import WireRequest

KEPT = re.compile(r"^(content-type|retry-after.*|(x|anthropic)-ratelimit-.*)$")
"""Headers of replies that are recorded: others name accounts, cookies and machines."""


class Recorder:
    """A carrier that writes down what another one brings, a line of JSON for each exchange.

    Keys are neither in what is recorded of a request (its own headers and body) nor, should an API send one back, in
    the reply: every value of the secret headers is taken out.
    """

    def __init__(self, carrier: Carrier, path: Path) -> None:
        self.carrier, self.path = carrier, path
        self._file: TextIO | None = None

    def __enter__(self) -> Recorder:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # It holds what patients said: nobody else's business.
            self._file = os.fdopen(
                os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "a", encoding="utf-8"
            )
        except OSError as error:
            fix = "Name another file (providers.record)."
            raise UserError(f"cannot be written ({error.strerror})", where=self.path, fix=fix) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    async def post(self, made: WireRequest, secret: Mapping[str, str]) -> Reply:
        reply = await self.carrier.post(made, secret)
        line = {
            "key": request_key(made),
            "url": made.url,
            "body": made.body,
            "status": reply.status,
            "headers": {name: value for name, value in reply.headers.items() if KEPT.match(name.lower())},
            "reply": _without(reply.body.decode(errors="replace"), secret),
        }
        text = _without(json.dumps(line, ensure_ascii=False), secret)
        if self._file is None:
            raise RuntimeError("enter the recorder with `with` first")
        self._file.write(text + "\n")
        self._file.flush()
        return reply


class Replay:
    """A carrier that answers from a recording, by the request; the same request again gets the next answer on record to
    it, and the last one for ever after. Failures that an answer came after are passed over. Raises UserError where the
    recording cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._replies: dict[str, deque[Reply]] = defaultdict(deque)
        try:
            *lines, torn = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot be read ({error})", where=path, fix="Name a recording.") from None
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

    def _keep(self, line: str, number: int) -> None:
        try:
            found: dict[str, Any] = json.loads(line)
            reply = Reply(int(found["status"]), CIMultiDict(found["headers"]), str(found["reply"]).encode())
            replies = self._replies[str(found["key"])]
            while reply.status == 200 and replies and replies[-1].status != 200:
                replies.pop()
            replies.append(reply)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError("not a line of a recording", where=f"{self.path}:{number}", fix="Record it anew.") from None


def _without(text: str, secret: Mapping[str, str]) -> str:
    """``text`` without the values of headers and the keys that they carry after a scheme's name, as they are or as JSON
    writes them."""
    for value in secret.values():
        for word in (word for word in {value, value.rpartition(" ")[2]} if len(word) >= SHORTEST_KEY):
            for written in (word, json.dumps(word)[1:-1], json.dumps(word, ensure_ascii=False)[1:-1]):
                text = text.replace(written, "[key]")
    return text
