"""Write every attempt at a request, and what came back, to a file as it happens: without keys, and off the event loop.

The journal is the truth of a run; this file is what was said word for word. Lines are appended without waiting for the
disk, so a power cut may lose the last ones, and a kill leaves at most one torn line, which the next process cuts off.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.files import append_whole
from cbtrain.journal import cut_torn_tail, with_checksum
from cbtrain.providers.cassette import kept_headers
from cbtrain.providers.exchanges.folding import Folding
from cbtrain.providers.formats.api_format import WireAnswer, WireRequest
from cbtrain.providers.redaction import redacted_texts
from cbtrain.providers.transport import Arriving, Reply, Transport


class ExchangeLog:
    """``with ExchangeLog(path) as log:``. A line that cannot be written (a full disk, say) is missing, and
    ``warn(text)`` is called once; the run continues. Raises UserError if the file cannot be opened."""

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self.path, self.warn = path, warn
        self._folding = Folding()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="requests")
        self._warned = False

    def __enter__(self) -> ExchangeLog:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            cut_torn_tail(self._file, self.path)
            self._end = os.fstat(self._file).st_size
        except OSError as error:
            hint = "Free it, or set providers.keep_requests=false."
            raise UserError(f"cannot be written ({error.strerror})", where=self.path, hint=hint) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)
        os.close(self._file)

    @contextmanager
    def attempt(self, transport: Transport, request: str, role: str, number: int) -> Iterator[Transport]:
        """Yield a transport for attempt ``number`` at ``request``. At the end of the body what was sent and what came,
        also in part, is written, and the error that ended it."""
        tap = _Tap(transport)
        problem = ""
        try:
            yield tap
        except BaseException as error:
            problem = str(error) or type(error).__name__
            raise
        finally:
            if tap.sent is not None:
                line: dict[str, Any] = {
                    "request": request,
                    "role": role,
                    "attempt": number,
                    "time": tap.time,
                    "seconds": tap.seconds,
                }
                reply = tap.arriving.reply
                if reply is not None:
                    line |= {"status": reply.status, "headers": kept_headers(reply), "reply": reply.body}
                self._put(line | ({"problem": problem} if problem else {}), tap.sent, tap.secret)

    def reused(self, request: str, role: str, wire_request: WireRequest, answer: WireAnswer) -> None:
        """Write that the kept ``answer`` was taken, and nothing sent."""
        line = {"request": request, "role": role, "attempt": 0, "time": _now(), "answer": asdict(answer)}
        self._put(line, wire_request, {})

    def _put(self, line: dict[str, Any], wire_request: WireRequest, secret: Mapping[str, str]) -> None:
        self._thread.submit(self._write, line, wire_request, secret)

    def _write(self, line: dict[str, Any], wire_request: WireRequest, secret: Mapping[str, str]) -> None:
        try:
            body, names, new = self._folding.fold(wire_request.body, self._end)
            line |= {"url": wire_request.url, "body": body} | ({"folded": names} if names else {})
            if "reply" in line:
                line["reply"] = line["reply"].decode(errors="replace")
            # Headers may name a scheme before the key.
            keys = {word for value in secret.values() for word in (value, value.rpartition(" ")[2])}
            name = {"request": line.pop("request")}  # first: readers look for it there
            text = json.dumps(name | redacted_texts(line, keys), ensure_ascii=False).encode(errors="replace")
            whole = with_checksum(text) + b"\n"
            append_whole(self._file, whole, self.path)
            self._folding.remember(new)
            self._end += len(whole)
        except Exception as error:  # nothing here may end a run that is paid for
            if not self._warned:
                reason = error.strerror if isinstance(error, OSError) else repr(error)
                self.warn(f"{self.path} is incomplete: it cannot be written ({reason}). The run continues")
            self._warned = True


class _Tap:
    """A transport for one attempt, which keeps what was sent and what has arrived."""

    def __init__(self, transport: Transport) -> None:
        self.transport, self.arriving = transport, Arriving()
        self.sent: WireRequest | None = None
        self.secret: Mapping[str, str] = {}
        self.time, self.seconds = "", 0.0

    async def post(
        self, wire_request: WireRequest, secret: Mapping[str, str], arriving: Arriving | None = None
    ) -> Reply:
        self.sent, self.secret, self.time, started = wire_request, secret, _now(), time.perf_counter()
        try:
            reply = await self.transport.post(wire_request, secret, self.arriving)
            self.arriving.reply = reply
            return reply
        finally:
            self.seconds = round(time.perf_counter() - started, 3)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
