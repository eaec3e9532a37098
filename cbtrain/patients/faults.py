"""What is wrong with the patients of a file, told all at once; what was left out or guessed while they were read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cbtrain.errors import Collected

MOST_TOLD = 12
"""Faults that one error names; the others are counted."""

SHOWN_IDS = 3

Say = Callable[[str], None]
"""Takes one line of what was dropped, guessed or cut."""


def unsaid(text: str) -> None:
    """Take a line and keep it from nobody but the caller, who did not ask."""


class Faults(Collected):
    """Collects what is wrong with patients."""

    def __init__(self) -> None:
        super().__init__("faults in the patients", MOST_TOLD)


class Notes:
    """Collects what is said of several patients, so that each thing is said once, with who it concerns."""

    def __init__(self) -> None:
        self._ids: dict[str, list[str]] = {}

    def add(self, text: str, patient: str) -> None:
        self._ids.setdefault(text, []).append(patient)

    def tell(self, say: Say) -> None:
        for text, ids in self._ids.items():
            say(f"{text} ({named(ids)})")


def named(ids: Sequence[str]) -> str:
    """Return the first of ``ids`` in words, and how many more there are: ``a, b and 7 more``."""
    shown = ", ".join(ids[:SHOWN_IDS])
    return f"{shown} and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else shown
