"""One line for each request on standard error: what was asked of which model and how it ended, never a word of it."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from aiohttp import web

from cbtrain.generation.request import Completion
from cbtrain.serving.answers.shapes import usage_of

WAITING = 1_000
"""Lines that wait where nobody reads standard error; more are dropped, and counted."""


@dataclass(slots=True)
class Record:
    """What is known of one request."""

    method: str
    path: str
    client: str
    began: float = field(default_factory=time.perf_counter)
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    drawn_tokens: int = 0
    first_token_s: float | None = None
    note: str = ""

    def first_token(self) -> None:
        self.first_token_s = time.perf_counter() - self.began

    def add(self, completions: Sequence[Completion], choices: int) -> None:
        """Count the tokens of ``completions``; each prompt has ``choices`` of them."""
        usage = usage_of(completions, choices)
        self.prompt_tokens, self.drawn_tokens = usage["prompt_tokens"], usage["completion_tokens"]
        self.cached_tokens = usage["prompt_tokens_details"]["cached_tokens"]

    def line(self, status: int) -> str:
        seconds = time.perf_counter() - self.began
        tokens = ""
        if self.prompt_tokens:
            tokens = f"  {self.prompt_tokens:,} tokens ({self.cached_tokens:,} cached) + {self.drawn_tokens:,} drawn"
        model = f"  {self.model}" if self.model else ""
        note = f"  {self.note}" if self.note else ""
        return f"{status}  {self.method} {self.path}{model}{tokens}  {seconds:.2f} s  {self.client}{note}"


RECORD = web.RequestKey("record", Record)
"""Where a request has its record."""


class RequestLog:
    """Writes lines from a thread of its own: a terminal or pipe that stands still stops nobody. Without ``requests``
    only defects are written.

    The thread writes past the buffer of ``stream``, whose lock it would hold for ever: the interpreter flushes the
    buffer of standard error before it ends.
    """

    def __init__(self, stream: TextIO | None = None, *, requests: bool = True) -> None:
        self._descriptor, self._requests = (stream or sys.stderr).fileno(), requests
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="cbtrain-log", daemon=True)
        self._thread.start()

    def add_request(self, record: Record, status: int) -> None:
        if self._requests:
            self.add(record.line(status))

    def add(self, line: str) -> None:
        line = f"{time.strftime('%H:%M:%S')}  {line}"
        text = f"{line} (before it, {self._dropped:,} lines were dropped)" if self._dropped else line
        try:
            # Names and paths come from clients: nothing of them moves the cursor.
            self._lines.put_nowait("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
            self._dropped = 0
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, for a second at most."""
        try:
            self._lines.put(None, timeout=0.5)
        except queue.Full:
            return
        self._thread.join(0.5)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                data = f"{line}\n".encode(errors="backslashreplace")
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:  # it has been closed
                return
