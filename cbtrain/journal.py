"""An append-only log of JSON lines, each on disk before the caller continues: the source of truth of a run."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from cbtrain.errors import UserError
from cbtrain.files import append_whole


class Journal:
    """Appends records to ``path``; one process at a time, of which any thread may write.

    Opening cuts off an incomplete last line (a crash while writing), and appends a record of kind ``repaired``.
    Raises UserError if another running process writes the same file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._alone = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            # The kernel lets go of the lock when the process dies, however it dies.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise UserError("another process writes here", where=self.path, hint="Wait for it, or stop it.") from None
        dropped = self._cut_torn_tail()
        if dropped:
            self.append("repaired", dropped_bytes=dropped)

    def append(self, kind: str, *, sync: bool = True, **fields: Any) -> dict[str, Any]:
        """Write one record with ``kind`` and ``time`` (UTC, ISO 8601) and return it once it is on disk. Without
        ``sync``, return as soon as the system has it: a crash of the machine may lose it.

        Raises ValueError for values that JSON does not have (NaN, objects).
        """
        moment = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        record = {"kind": kind, "time": moment, **fields}
        line = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with self._alone:
            append_whole(self._file, line, self.path)
        if sync:
            self.sync()
        return record

    def sync(self) -> None:
        """Return once all appended records are on disk."""
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cut_torn_tail(self) -> int:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        last = content[content.rfind(b"\n", 0, whole - 1) + 1 : whole] if whole else b""
        if last and not _parses(last):
            whole -= len(last)
        os.ftruncate(self._file, whole)
        return len(content) - whole


def read(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield every complete record of a journal, in order; an incomplete last line is skipped.

    Raises UserError with file and line if a line before the last is damaged.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        raise UserError("no such journal", where=path, hint="Name a run folder.") from None
    tail = lines.pop()
    for number, line in enumerate(lines, 1):
        if _parses(line):
            yield json.loads(line)
        elif number < len(lines) or tail:
            raise UserError("damaged record", where=f"{path}:{number}", hint="Restore the file from a copy.")


def _parses(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
