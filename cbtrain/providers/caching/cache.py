"""Answers on disk, shared by all runs: an answer that was paid for is not asked for again.

SQLite with a write-ahead log, every commit synced, so that several processes may use one file and none loses an answer.
One of them asks for an answer, under a lease (:mod:`.lease`); the others wait for it. An answer that is on disk is
never overwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from cbtrain.files import cache_folder, expanded
from cbtrain.providers.answers.clearing import cleared, worth_keeping
from cbtrain.providers.caching.lease import LEASES, Leases
from cbtrain.providers.formats.api_format import WireAnswer, WireRequest
from cbtrain.providers.types import Usage
from cbtrain.stopping import protect

Made = TypeVar("Made")

VERSION = 1
PATIENCE_S = 60  # for another process that holds the file
FIRST_LOOK_S, LOOK_S = 0.05, 1.0
"""Seconds between two looks for another process's answer; they double from the first to the second."""

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
        return expanded(setting)
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
        await asyncio.to_thread(self._leases.stop_beating)
        with contextlib.suppress(UserError):  # it is closed whatever has become of the file
            await self._do(self._close)
        self._thread.shutdown()

    @asynccontextmanager
    async def ask(self, key: str, *, on_wait: Callable[[], None] = lambda: None) -> AsyncIterator[WireAnswer | None]:
        """Yield the answer that is kept, or None to the one task that may request it.

        One task at a time requests it, in this process and in all others that use the file. The others wait until its
        answer is there, or until it has given up or died; ``on_wait`` is called if they wait for another process.
        Without ``reuse`` no answer is taken and no process is waited for.
        """
        async with self._alone(key):
            answer = None
            try:
                if self.reuse:
                    answer = await self._answer_or_lease(key, on_wait)
                yield answer
            finally:
                if self.reuse and answer is None:  # also if it was cancelled while it took the lease
                    with contextlib.suppress(UserError):  # then it expires
                        await self._do(lambda: self._leases.release(key))

    async def _answer_or_lease(self, key: str, on_wait: Callable[[], None]) -> WireAnswer | None:
        """Return the kept answer, or None with the lease of ``key``."""

        def look() -> tuple[WireAnswer | None, bool]:
            answer = self._read(key)
            try:
                if answer is not None or not self._leases.take(key):
                    return answer, False
            except sqlite3.OperationalError:  # a full disk, say: request it without a lease; `keep` reports the problem
                return None, True
            answer = self._read(key)  # it may have come, and its lease gone, between the two
            if answer is not None:
                self._leases.release(key)
            return answer, True

        pause_s = FIRST_LOOK_S
        while True:
            answer, taken = await self._do(look)
            if answer is not None or taken:
                return answer
            if pause_s == FIRST_LOOK_S:
                on_wait()
            await asyncio.sleep(pause_s)
            pause_s = min(LOOK_S, 2 * pause_s)

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Let one task of this process at a time enter."""
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

    def _read(self, key: str) -> WireAnswer | None:
        row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        answer = _parse(row[0], key)
        if answer is None:  # damaged, or not worth keeping by today's rules: requested again
            with self._database:
                self._database.execute("DELETE FROM answers WHERE key = ? AND answer IS ?", (key, row[0]))
        return answer

    async def keep(self, key: str, request: dict[str, Any], answer: WireAnswer) -> None:
        """Keep the answer if it is worth keeping and none is there; on disk on return."""
        if not worth_keeping(answer):
            return
        kept: Future[None] = Future()
        self._pending.append(((key, _json(request), _to_json(answer, key), time.time()), kept))
        await self._do(self._write)
        await protect(asyncio.wrap_future(kept))

    def _write(self) -> None:
        """Write all pending answers in one transaction: those that arrive while the disk is busy are synced once."""
        writes = [self._pending.popleft() for _ in range(len(self._pending))]
        if not writes:
            return
        try:
            with self._database:
                rows = [row for row, _ in writes]
                self._database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            for _, kept in writes:
                kept.set_exception(_unusable(self.path, error))
        else:
            for _, kept in writes:
                kept.set_result(None)

    def _open(self) -> None:
        self._database = open_answers(self.path)
        self._leases = Leases(_connect(self.path, "NORMAL"), self._thread)

    def _close(self) -> None:
        try:
            self._leases.close()
        finally:
            self._database.close()

    async def _do(self, work: Callable[[], Made]) -> Made:
        # Shielded: a cancelled caller must not leave half of it undone.
        try:
            return await protect(asyncio.get_running_loop().run_in_executor(self._thread, work))
        except (sqlite3.Error, OSError) as error:
            raise _unusable(self.path, error) from None


def open_answers(path: Path) -> sqlite3.Connection:
    """Open the file of kept answers, and create it if missing. Raises UserError if it cannot be used."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        database = _connect(path, "FULL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            hint = "Name another file (providers.answers), or update cbtrain."
            raise UserError(
                f"this file has version {version}; this cbtrain reads version {VERSION}", where=path, hint=hint
            )
        with database:
            database.execute(TABLE)
            database.execute(LEASES)
            database.execute(f"PRAGMA user_version = {VERSION}")
        return database
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from None


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """``FULL`` has every commit on disk; with ``NORMAL`` a power cut may undo the last ones, and damages nothing."""
    database = sqlite3.connect(path, timeout=PATIENCE_S)
    _log_ahead(database)
    database.execute(f"PRAGMA synchronous = {synchronous}")
    return database


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
    hint = "Free some space, move the file away, or name another one (providers.answers)."
    return UserError(f"answers cannot be saved here ({error})", where=path, hint=hint)


def _json(value: Any) -> str:
    return json.dumps(value)


def _to_json(answer: WireAnswer, key: str) -> str:
    fields = asdict(answer)
    return _json(fields | {"checksum": _checksum(fields, key)})


def _parse(text: str, key: str) -> WireAnswer | None:
    """Return the answer that was kept under ``key``. None if it has changed since, cannot be read, or would not be kept
    today. Older versions wrote no checksum."""
    try:
        fields = json.loads(text)
        checksum = fields.pop("checksum", None)
        if checksum is not None and checksum != _checksum(fields, key):
            return None
        usage, thinking = Usage(**fields["usage"]), fields.get("thinking", 0)
        answer = cleared(WireAnswer(fields["text"], fields["finish_reason"], usage, fields["model"], thinking))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return answer if worth_keeping(answer) else None


def _checksum(fields: dict[str, Any], key: str) -> str:
    return hashlib.sha256(json.dumps([key, fields], sort_keys=True).encode()).hexdigest()[:16]
