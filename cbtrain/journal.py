"""An append-only log of JSON lines, each on disk before the caller continues: the source of truth of a run.

Each line ends with its own checksum (``crc``), so that a line that has changed since it was written is found and not
used. Lines of versions of cbtrain that wrote none are read without a check.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from cbtrain.errors import UserError
from cbtrain.files import append_whole

Record = dict[str, Any]
Check = Callable[[Any], bool]
"""Says whether a field's value is one that can be used."""

Shape = Mapping[str, Check] | Callable[[Record], Mapping[str, Check]]
"""The fields that a record must have; a function where that depends on the record."""

CHECKSUM = re.compile(rb', "crc": "([0-9a-f]{8})"}$')
"""How a line ends; the checksum is that of the line without it."""

LOCK_TRIES = 10
"""Attempts at the lock of a journal, a hundredth of a second apart."""


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_amount(value: Any) -> bool:
    """A finite number that is not negative."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def is_section(value: Any) -> bool:
    return isinstance(value, dict)


def or_none(check: Check) -> Check:
    """Return the check of a value that may also be missing."""
    return lambda value: value is None or check(value)


def with_checksum(line: bytes) -> bytes:
    """``line``, a JSON object with at least one field, with its checksum as the last field."""
    return line[:-1] + b', "crc": "%08x"}' % zlib.crc32(line)


def parse_line(line: bytes) -> Record | None:
    """Return the JSON object in ``line`` without its checksum; None if it is not one, or has changed since it was
    written."""
    checksum = CHECKSUM.search(line)
    whole = line[: checksum.start()] + b"}" if checksum else line
    if checksum and int(checksum[1], 16) != zlib.crc32(whole):
        return None
    try:
        record = json.loads(whole)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


class Journal:
    """Appends records to ``path``; one process at a time, of which any thread may write.

    Opening cuts off an incomplete last line (a crash while writing), and appends a record of kind ``repaired``.
    Raises UserError if another running process writes the same file.

    ``listener``, if there is one, is called with each record in the order of the file, in the thread that has written
    it, while others wait to write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.listener: Callable[[Record], None] | None = None
        self._alone = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        if not _locked(self._file):
            os.close(self._file)
            raise UserError("another process writes here", where=self.path, hint="Wait for it, or stop it.")
        dropped = cut_torn_tail(self._file, self.path)
        if dropped:
            self.append("repaired", dropped_bytes=dropped)

    def append(self, kind: str, *, sync: bool = True, **fields: Any) -> dict[str, Any]:
        """Write one record with ``kind`` and ``time`` (UTC, ISO 8601) and return it once it is on disk. Without
        ``sync``, return as soon as the system has it: a crash of the machine may lose it.

        Raises ValueError for values that JSON does not have (NaN, objects).
        """
        moment = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        record = {"kind": kind, "time": moment, **fields}
        line = with_checksum(json.dumps(record, ensure_ascii=False, allow_nan=False).encode()) + b"\n"
        with self._alone:
            append_whole(self._file, line, self.path)
            if self.listener:
                self.listener(record)
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


def cut_torn_tail(file: int, path: Path) -> int:
    """Cut an incomplete last line off the open ``file``, which is at ``path``; return how many bytes that were."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    last = content[content.rfind(b"\n", 0, whole - 1) + 1 : whole] if whole else b""
    if last and not _parses(last):
        whole -= len(last)
    os.ftruncate(file, whole)
    return len(content) - whole


def _locked(file: int) -> bool:
    """Take the lock of the journal that is open as ``file``; return False if another process keeps it. The kernel lets
    go of it when the process dies, however it dies."""
    for attempt in range(LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.01 if attempt + 1 < LOCK_TRIES else 0.0)  # somebody may just be asking `being_written`
        else:
            return True
    return False


def being_written(path: str | Path) -> bool:
    """Return whether a process has the journal at ``path`` open. Raises OSError if the file cannot be read."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def read(path: str | Path, shapes: Mapping[str, Shape] | None = None) -> Iterator[Record]:
    """Yield every complete record of a journal, in order; an incomplete last line is skipped.

    Raises UserError with file and line if a line is damaged, or if a record lacks a field that ``shapes`` (by kind)
    asks for.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        raise UserError("no such journal", where=path, hint="Name a run folder.") from None
    hint = "Restore the file from a copy; what was paid for is in it."
    tail = lines.pop()
    for number, line in enumerate(lines, 1):
        record = parse_line(line)
        if record is None:
            if number == len(lines) and not tail and not _parses(line):
                return  # torn by a crash
            raise UserError("damaged record", where=f"{path}:{number}", hint=hint)
        problem = _problem(record, shapes or {})
        if problem:
            raise UserError(problem, where=f"{path}:{number}", hint=hint)
        yield record


def _problem(record: Record, shapes: Mapping[str, Shape]) -> str:
    """What is wrong with the fields of ``record``, or nothing."""
    kind = record.get("kind")
    if not isinstance(kind, str):
        return "a record without a kind"
    shape = shapes.get(kind, {})
    for name, check in (shape(record) if callable(shape) else shape).items():
        if name not in record:
            return f"the record of kind {kind!r} lacks {name!r}"
        if not check(record[name]):
            return f"the record of kind {kind!r} has an unusable {name!r}"
    return ""


def _parses(line: bytes) -> bool:
    """Whether ``line`` was written to its end."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
