"""Leases on answers that are being asked for: one process asks, the others wait for its answer.

A lease names its owner, who adds to its ``beats`` every few seconds as long as it lives. A process that waits takes the
lease over where the owner is known to be dead, or its beats have stood still for :data:`EXPIRY_S` seconds. That is
measured by the waiting process's own monotonic clock: no two clocks are compared.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sqlite3
import threading
import time
import uuid
from concurrent.futures import Executor
from functools import cache
from pathlib import Path

BEAT_S = 5.0
"""Seconds between two signs of life."""

EXPIRY_S = 30.0
"""Seconds without one after which an owner counts as dead: killed on another machine, stopped, or hanging."""

LEASES = "CREATE TABLE IF NOT EXISTS leases (key TEXT PRIMARY KEY, owner TEXT, beats INTEGER) WITHOUT ROWID"


class Leases:
    """The leases in ``database``, all of whose work is done on the one thread of ``executor``. Methods raise
    sqlite3.Error."""

    def __init__(self, database: sqlite3.Connection, executor: Executor) -> None:
        self._database, self._executor = database, executor
        self.owner = f"{machine()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self._held: set[str] = set()
        self._seen: dict[str, tuple[str, int, float]] = {}
        """Of leases that are waited for: owner, beats, and when these were first seen."""
        self._closing = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, name="leases", daemon=True)
        self._heart.start()

    def take(self, key: str) -> bool:
        """Take the lease of ``key``; False where another process has it."""
        if not self._is_free(key):  # without a lock on the file, since those who wait look often
            return False
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            if not self._is_free(key):
                return False
            self._database.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, 0)", (key, self.owner))
        self._seen.pop(key, None)
        self._held.add(key)
        return True

    def release(self, key: str) -> None:
        """Give the lease of ``key`` back, unless another process has taken it over."""
        self._held.discard(key)
        with self._database:
            self._database.execute("DELETE FROM leases WHERE key = ? AND owner = ?", (key, self.owner))

    def stop_beating(self) -> None:
        self._closing.set()
        self._heart.join()

    def close(self) -> None:
        """Give all of them back. The heart has stopped before."""
        try:
            with self._database:
                self._database.execute("DELETE FROM leases WHERE owner = ?", (self.owner,))
        finally:
            self._database.close()

    def _is_free(self, key: str) -> bool:
        """Whether no other process has the lease of ``key``, or it counts as dead."""
        row = self._database.execute("SELECT owner, beats FROM leases WHERE key = ?", (key,)).fetchone()
        if row is None or row[0] == self.owner or is_dead(row[0]):
            return True
        owner, beats = row
        before = self._seen.get(key)
        if before is None or before[:2] != (owner, beats):
            self._seen[key] = (owner, beats, time.monotonic())
            return False
        return time.monotonic() - before[2] > EXPIRY_S

    def _beat_on(self) -> None:
        # From a thread: an event loop that is busy for long must not look dead.
        while not self._closing.wait(BEAT_S):
            with contextlib.suppress(sqlite3.Error):  # the next one may succeed
                self._executor.submit(self._beat).result()

    def _beat(self) -> None:
        if self._held:
            with self._database:
                self._database.execute("UPDATE leases SET beats = beats + 1 WHERE owner = ?", (self.owner,))


@cache
def machine() -> str:
    """Where process ids mean the same: this boot of this machine, and on Linux this namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}".replace("/", ":")
    except OSError:
        return platform.node().replace("/", ":") or "unknown"


def is_dead(owner: str) -> bool:
    """Whether the process of ``owner`` is known to have ended; of one elsewhere nothing is known."""
    where, _, process = owner.partition("/")
    number = process.partition("/")[0]
    if where != machine() or where == "unknown" or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False
