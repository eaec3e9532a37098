"""Follow the journal of a run that another process writes: each record is read once."""

from __future__ import annotations

import os
from pathlib import Path

from cbtrain.eval.watching.tally import Tally
from cbtrain.journal import parse_line

BLOCK = 1 << 20
"""Bytes that are read at once."""


class Follower:
    """Keeps ``tally`` up to date with the journal at ``path``. ``bytes_read`` counts what was read of it.

    A last line that is incomplete, or that is no record, is left in the file until something follows it: a process that
    continues a run cuts it off. A journal that was replaced, or cut before what was read, is read anew.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.tally = path, Tally()
        self.bytes_read = 0
        self._file: tuple[int, int] | None = None
        self._next = self._size = 0

    def update(self) -> None:
        """Read what was added since the last time. A file that is missing (for the moment) adds nothing. Raises OSError
        if it cannot be read."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            status = os.fstat(descriptor)
            if self._file != (status.st_dev, status.st_ino) or status.st_size < self._next:
                self._file, self._next, self._size, self.tally = (status.st_dev, status.st_ino), 0, 0, Tally()
            if status.st_size != self._size:
                self._read(descriptor)
                self._size = status.st_size
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> None:
        os.lseek(descriptor, self._next, os.SEEK_SET)
        damaged, rest = b"", b""
        while block := os.read(descriptor, BLOCK):
            self.bytes_read += len(block)
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                if damaged:  # and it is not the last one: nobody will cut it off
                    self._skip(damaged)
                    damaged = b""
                record = parse_line(line)
                if record is None:
                    damaged = line + b"\n"
                else:
                    self.tally.add(record)
                    self._next += len(line) + 1

    def _skip(self, line: bytes) -> None:
        self.tally.unread += 1
        self._next += len(line)
