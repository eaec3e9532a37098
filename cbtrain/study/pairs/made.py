"""Pairs that were made, and how they are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cbtrain.eval.report.formatting import counted
from cbtrain.study.pairs.writing import patients_beside
from cbtrain.transcripts.types import Session

Say = Callable[[str], None]
"""Takes a line for the user."""


@dataclass(frozen=True, slots=True)
class MadePairs:
    """``pairs``: sessions with a preference, each a course of its own. ``left_out``: how many of what were left out."""

    pairs: list[Session]
    left_out: Counter[str]

    def tell_left_out(self, say: Say) -> None:
        for what, count in self.left_out.items():
            say(f"left out: {count:,} {what}")

    def tell_written(self, path: Path, say: Say) -> None:
        """Say how many pairs were written, of how many patients, and where."""
        patients = {pair.patient for pair in self.pairs}
        say(f"{counted(len(self.pairs), 'pair')} of {counted(len(patients), 'patient')}: {path}")
        say(f"whose they are: {patients_beside(path)}; a model trained on them must not be measured on these patients")
