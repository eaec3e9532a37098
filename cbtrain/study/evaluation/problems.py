"""Everything that keeps a study from beginning, told at once and before the first call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cbtrain.errors import UserError

MOST_TOLD = 8
"""Problems that one error names; the others are counted."""


def first_of(texts: Sequence[str], most: int) -> list[str]:
    """Return the first ``most`` of ``texts`` and, in words, how many more there are."""
    more = len(texts) - most
    return [*texts[:most], *([f"and {more} more"] if more > 0 else [])]


class Problems:
    """Collects UserErrors."""

    def __init__(self) -> None:
        self.found: list[UserError] = []

    @contextmanager
    def collected(self, where: str | None = None) -> Iterator[None]:
        """Collect a UserError of the body; with ``where``, say that it is about that setting."""
        try:
            yield
        except UserError as error:
            if where is not None:
                what = error.what if error.where is None else f"{error.where}: {error.what}"
                error = UserError(what, where=where, hint=error.hint)
            self.found.append(error)

    def refuse(self) -> None:
        """Raise UserError if there are any: one that names them all."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            told = first_of([f"({number}) {error}" for number, error in enumerate(self.found, 1)], MOST_TOLD)
            raise UserError(f"{len(self.found)} things keep this study from beginning: {' '.join(told)}")
