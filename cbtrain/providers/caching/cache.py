"""Answers on disk, shared by runs: what was paid for once is not asked for again.

SQLite with a write-ahead log, every commit synced. Before a request goes out, a note that it will is on disk; the
answer takes the note's place in one transaction. The notes that a killed process leaves are the requests of which
nobody knows whether they were answered, and billed.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from cbtrain.errors import UserError
from cbtrain.providers.caching.owner import Owner
from cbtrain.providers.types import Usage
from cbtrain.providers.wires.wire import WireAnswer

Made = TypeVar("Made")

VERSION = 1
TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, request TEXT, answer TEXT, at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intents (key TEXT, owner TEXT, run TEXT, role TEXT, dollars REAL, at REAL,
                                    PRIMARY KEY (key, owner)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Lost:
    """A request that was under way when its process ended; ``dollars`` is what was set aside for it."""

    key: str
    role: str
    dollars: float


def worth_keeping(answer: WireAnswer) -> bool:
    """Refusals, filtered and empty answers may be others the next time."""
    return answer.finish_reason in ("stop", "length") and bool(answer.text.strip())


class AnswerCache:
    """``async with AnswerCache(path) as cache:``; several processes may use the same file.

    A thread of its own does the reading and writing, so that a slow disk does not hold up other conversations. Raises
    UserError where the file is no such cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def __aenter__(self) -> AnswerCache:
        await self._do(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._do(self._close)
        self._thread.shutdown()

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """One at a time of those in this process that want the same answer: the others then find it."""
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
        def read() -> WireAnswer | None:
            row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            return None if row is None else _answer(json.loads(row[0]))

        return await self._do(read)

    async def begin(self, key: str, *, run: str, role: str, dollars: float) -> None:
        """Write down that the request is about to go out; it is on disk on return."""

        def write() -> None:
            values = (key, self._owner.name, run, role, dollars, time.time())
            with self._database:
                self._database.execute("INSERT OR REPLACE INTO intents VALUES (?, ?, ?, ?, ?, ?)", values)

        await self._do(write)

    async def finish(self, key: str, request: dict[str, Any], answer: WireAnswer) -> None:
        """Keep the answer, if it is worth it, and cross out that it was under way; on disk on return."""

        def write() -> None:
            with self._database:
                if worth_keeping(answer):
                    values = (key, _json(request), _json(asdict(answer)), time.time())
                    self._database.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", values)
                self._cross_out(key)

        await self._do(write)

    async def drop(self, key: str) -> None:
        """Cross out a request that has come to nothing, or whose loss is booked."""

        def write() -> None:
            with self._database:
                self._cross_out(key)

        await self._do(write)

    async def lost(self, run: str) -> list[Lost]:
        """Requests of ``run`` that were under way in processes that live no more; each is told of once."""

        def take() -> list[Lost]:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                rows = self._database.execute(
                    "SELECT key, owner, role, dollars FROM intents WHERE run = ? ORDER BY at", (run,)
                ).fetchall()
                dead = {owner for _, owner, _, _ in rows if not self._owner.alive(owner)}
                for owner in dead:
                    self._database.execute("DELETE FROM intents WHERE run = ? AND owner = ?", (run, owner))
            for owner in dead:
                if not self._database.execute("SELECT 1 FROM intents WHERE owner = ?", (owner,)).fetchone():
                    self._owner.forget(owner)
            return [Lost(key, role, dollars) for key, owner, role, dollars in rows if owner in dead]

        return await self._do(take)

    def _cross_out(self, key: str) -> None:
        self._database.execute("DELETE FROM intents WHERE key = ? AND owner = ?", (key, self._owner.name))

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=60)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                fix = "Name another file, or update cbtrain."
                raise UserError(f"a cache of version {version}; this program knows {VERSION}", where=self.path, fix=fix)
            with self._database:
                self._database.executescript(TABLES)
                self._database.execute(f"PRAGMA user_version = {VERSION}")
        except (sqlite3.Error, OSError) as error:
            fix = "Name another file, or move this one away."
            raise UserError(f"cannot be used as a cache of answers ({error})", where=self.path, fix=fix) from None
        self._owner = Owner(self.path.with_name(f"{self.path.name}.owners"))

    def _close(self) -> None:
        self._database.close()
        self._owner.close()

    async def _do(self, work: Callable[[], Made]) -> Made:
        # Shielded: a cancelled caller must not leave half a transaction's news behind.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _answer(found: dict[str, Any]) -> WireAnswer:
    return WireAnswer(found["text"], found["finish_reason"], Usage(**found["usage"]), found["model"])
