"""A pair of records and its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LABELS = {1: "Yes", 0: "No"}
"""The answer by label: 1 for a pair that is the same thing, 0 for one that is not."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two records, ``left`` and ``right``, and whether they describe the same thing (``label`` 1) or not (0).

    ``prompt`` is the question as a file of prompts has it, None where the file has records; then ``left`` and ``right``
    may be empty, if they cannot be read from the prompt. ``explanation`` is what follows Yes or No in the file's
    answer. ``hard`` says of a negative whether it resembles a positive; None if nothing says so.
    """

    id: str
    left: str
    right: str
    label: int
    hard: bool | None = None
    prompt: str | None = None
    explanation: str = ""

    @property
    def has_records(self) -> bool:
        return bool(self.left and self.right)

    @property
    def answer(self) -> str:
        """``Yes`` or ``No``."""
        return LABELS[self.label]

    @property
    def content(self) -> tuple[str, str] | str:
        """What makes two pairs the same one: the records, or the prompt where there are none."""
        return (self.left, self.right) if self.has_records else (self.prompt or "")


@dataclass(frozen=True, slots=True)
class Counts:
    """Pairs in all, those that match, those that do not."""

    pairs: int
    positives: int

    @property
    def negatives(self) -> int:
        return self.pairs - self.positives

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Counts:
        return cls(len(pairs), sum(pair.label for pair in pairs))
