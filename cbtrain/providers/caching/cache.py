"""Answers on disk, shared by all runs: an answer that was paid for is not asked for again.

SQLite with a write-ahead log, every commit synced, so that several processes may use one file and none loses an answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from cbtrain.errors import UserError
from cbtrain.files import cache_folder
from cbtrain.providers.answers.clearing import cleared, worth_keeping
from cbtrain.providers.formats.api_format import WireAnswer, WireRequest
from cbtrain.providers.types import Usage

Made = TypeVar("Made")

VERSION = 1
PATIENCE_S = 60  # for another process that holds the file
TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, request TEXT, answer TEXT, at REAL) WITHOUT ROWID"


def request_key(wire_request: WireRequest, sample: int = 0) -> str:
    """Return a hex digest of all that an answer depends on: address, body (in any order of fields) and ``sample``, the
    number of the repeat. Headers, with the key, are not part of it, nor is whether the answer comes in pieces."""
    wire_request = wire_request.whole or wire_request
    canonical = json.dumps(
        [wire_request.url, wire_request.body, sample],
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()


def answers_file(setting: str) -> Path:
    """Return the file that ``providers.answers`` names."""
    if setting != "auto":
        return Path(setting).expanduser()
    return cache_folder() / "answers.sqlite"


class AnswerCache:
    """``async with AnswerCache(path) as cache:``. All methods raise UserError if the file cannot be used. Without
    ``reuse`` answers are kept, and none is found.

    A thread of its own does the reading and writing, so that a slow disk does not hold up other conversations. The file
    holds what patients and judges were asked and said, and is readable by its owner alone.
    """

    def __init__(self, path: Path, *, reuse: bool = True) -> None:
        self.path, self.reuse = path, reuse
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._pending: deque[tuple[tuple[str, str, str, float], Future[None]]] = deque()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def __aenter__(self) -> AnswerCache:
        try:
            await self._do(self._open)
        except BaseException:
            self._thread.shutdown()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._do(lambda: self._database.close())
        self._thread.shutdown()

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Let one task at a time ask for the answer ``key``; the others in this process then find it."""
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[key]
            if waiting == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, waiting - 1)

    async def get(self, key: str) -> WireAnswer | None:
        """Return the kept answer, or None."""
        if not self.reuse:
            return None

        def read() -> WireAnswer | None:
            row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            return None if row is None else _answer(row[0])

        return await self._do(read)

    async def keep(self, key: str, request: dict[str, Any], answer: WireAnswer) -> None:
        """Keep the answer if it is worth keeping; on disk on return."""
        if not worth_keeping(answer):
            return
        kept: Future[None] = Future()
        self._pending.append(((key, _json(request), _json(asdict(answer)), time.time()), kept))
        await self._do(self._write)
        await asyncio.shield(asyncio.wrap_future(kept))

    def _write(self) -> None:
        """Write all pending answers in one transaction: those that arrive while the disk is busy are synced once."""
        writes = [self._pending.popleft() for _ in range(len(self._pending))]
        if not writes:
            return
        try:
            with self._database:
                rows = [row for row, _ in writes]
                self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            for _, kept in writes:
                kept.set_exception(_unusable(self.path, error))
        else:
            for _, kept in writes:
                kept.set_result(None)

    def _open(self) -> None:
        self._database = open_answers(self.path)

    async def _do(self, work: Callable[[], Made]) -> Made:
        # Shielded: a cancelled caller must not leave half of it undone.
        try:
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))
        except (sqlite3.Error, OSError) as error:
            raise _unusable(self.path, error) from None


def open_answers(path: Path) -> sqlite3.Connection:
    """Open the file of kept answers, and create it if missing. Raises UserError if it cannot be used."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        database = sqlite3.connect(path, timeout=PATIENCE_S)
        _log_ahead(database)
        database.execute("PRAGMA synchronous = FULL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            hint = "Name another file (providers.answers), or update cbtrain."
            raise UserError(f"a cache of version {version}; this program knows {VERSION}", where=path, hint=hint)
        with database:
            database.execute(TABLE)
            database.execute(f"PRAGMA user_version = {VERSION}")
        return database
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from None


def _log_ahead(database: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite does not wait its time-out for this one lock: the waiting is done here."""
    given_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > given_up:
                raise
            time.sleep(0.01)


def _unusable(path: Path, error: Exception) -> UserError:
    hint = "Free some space, move it away, or name another file (providers.answers)."
    return UserError(f"answers cannot be kept here ({error})", where=path, hint=hint)


def _json(value: Any) -> str:
    return json.dumps(value)


def _answer(text: str) -> WireAnswer | None:
    """Return a kept answer; None if it cannot be read, or would not be kept today: then it is asked for again, and
    replaced."""
    try:
        content = json.loads(text)
        usage, thinking = Usage(**content["usage"]), content.get("thinking", 0)
        answer = cleared(WireAnswer(content["text"], content["finish_reason"], usage, content["model"], thinking))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return answer if worth_keeping(answer) else None
