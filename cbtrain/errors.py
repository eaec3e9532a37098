"""The one exception that a user is meant to read.

Everything a user can cause (a missing file, a malformed line, an unknown key) is raised as :class:`UserError`; the
command line prints it as one line and exits with status 2. Anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: ``what`` is wrong, ``where`` (file, line, key), and what to do about it (``hint``)."""

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.hint:
            text = f"{text.rstrip('.')}. {self.hint}"
        return " ".join(text.split())


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
