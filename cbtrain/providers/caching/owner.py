"""Which processes that have written to a cache are still alive."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on this system: then every other process counts as alive
    fcntl = None  # type: ignore[assignment]


class Owner:
    """This process, as others see it: a file that is locked as long as it lives, however it ends.

    Locks are the system's (``flock``), so that of processes on other machines nothing is known where the file system
    does not share them.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, uuid.uuid4().hex
        self._file = os.open(folder / self.name, os.O_CREAT | os.O_RDWR, 0o600)
        if fcntl:
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def alive(self, name: str) -> bool:
        """Whether the process that called itself ``name`` is."""
        if name == self.name or not fcntl:
            return True
        try:
            file = os.open(self.folder / name, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def forget(self, name: str) -> None:
        """Remove what a dead process has left."""
        (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        (self.folder / self.name).unlink(missing_ok=True)
        os.close(self._file)
