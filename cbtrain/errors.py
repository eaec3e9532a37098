"""The one exception that a user is meant to read.

Everything a user can cause (a missing file, a malformed line, an unknown key) is raised as :class:`UserError`; the
command line prints it as one line and exits with status 2. Anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


class UserError(Exception):
    """Bad input: ``what`` is wrong, ``where`` (file, line, key), and what to do about it (``hint``)."""

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.hint:
            text = f"{text.rstrip('.')}{'' if text.endswith('?') else '.'} {self.hint}"
        return " ".join(text.split())


def first_of(texts: Sequence[str], most: int) -> list[str]:
    """Return the first ``most`` of ``texts`` and, in words, how many more there are."""
    more = len(texts) - most
    return [*texts[:most], *([f"and {more} more"] if more > 0 else [])]


class Collected:
    """Collects UserErrors, to raise one that names them all: ``what`` they are, the first ``most`` of them word for
    word."""

    def __init__(self, what: str, most: int) -> None:
        self.what, self.most = what, most
        self.found: list[UserError] = []

    def add(self, error: UserError) -> None:
        self.found.append(error)

    @contextmanager
    def collected(self, where: str | None = None) -> Iterator[None]:
        """Collect a UserError of the body; with ``where``, say that it is about that setting."""
        try:
            yield
        except UserError as error:
            if where is not None:
                what = error.what if error.where is None else f"{error.where}: {error.what}"
                error = UserError(what, where=where, hint=error.hint)
            self.add(error)

    def refuse(self) -> None:
        """Raise UserError if there are any."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            told = first_of([f"({number}) {error}" for number, error in enumerate(self.found, 1)], self.most)
            raise UserError(f"{len(self.found)} {self.what}: {' '.join(told)}")


REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "the file would be larger than allowed here; raise the limit (ulimit -f), or choose another place",
    errno.ENOENT: "no such file or folder, and it cannot be made there",
    errno.EACCES: "permission denied; choose another place or change its permissions",
    errno.EPERM: "not permitted; choose another place",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another place",
    errno.EEXIST: "a file is there, where a folder has to be; choose another place",
    errno.EISDIR: "a folder is there, where a file has to be; choose another place",
    errno.ENOTEMPTY: "the folder is not empty; choose another place",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its symbolic links lead in a circle; correct them, or choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EIO: "the device fails; choose another place, and check it",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine; end other programs",
    errno.ENOMEM: "memory is used up; end other programs, or take a larger machine",
}
"""What the system may answer to what a user asks for, and what to do about it."""

OF_RUST = re.compile(r"\(os error (\d{1,5})\)")
"""How safetensors and tokenizers, which read and write from Rust with exceptions of their own, name the reason."""


def system_problem(error: BaseException) -> str | None:
    """Return in one line why the system did not do what was asked, with the path if it is known; None if ``error`` is
    something else, a defect of ours."""
    named = OF_RUST.search(str(error))
    number = error.errno if isinstance(error, OSError) else int(named[1]) if named else None
    path = error.filename if isinstance(error, OSError) else None
    where = f"{os.fsdecode(path)}: " if isinstance(path, str | bytes | os.PathLike) else ""
    if number in REASONS:
        return f"{where}{REASONS[number]}"
    return f"{where}{os.strerror(number)}; choose another place" if where and number else None


def nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return a hint with the closest of ``names``, after ``prefix``, or with all of them if none is close."""
    names = sorted(names)
    # "lr" for "learning_rate", as people abbreviate.
    spelt = [word for word in names if "".join(part[:1] for part in word.split("_")) == name and len(name) > 1]
    if spelt:
        return f"Did you mean {prefix + spelt[0]!r}?"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean {prefix + close[0]!r}?" if close else "Known: " + ", ".join(names) + "."


class Stopped(BaseException):
    """Work ended before its time because the signal ``name`` asked for it; everything is saved.

    ``step`` is training's last one, ``done`` says how far other work has come, ``command`` continues it (None where
    nothing can be continued). Not an Exception: nothing that takes care of defects must swallow it.
    """

    def __init__(self, name: str, step: int | None = None, *, done: str = "") -> None:
        self.name, self.step = name, step
        self.command: str | None = None
        after = "" if step is None else f" after step {step}"
        super().__init__(", ".join(filter(None, [f"stopped by {name}{after}", done, "everything is saved"])))
