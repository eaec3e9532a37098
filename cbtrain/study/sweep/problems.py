"""Everything that keeps a sweep from beginning, told at once and before weights are loaded."""

from __future__ import annotations

from cbtrain.errors import Collected, UserError

MOST_TOLD = 20
"""Problems that one error names; the others are counted."""


class Problems(Collected):
    """Collects what is wrong with a sweep; what several runs have in common is told once."""

    def __init__(self) -> None:
        super().__init__("things keep this sweep from beginning", MOST_TOLD)

    def add(self, error: UserError) -> None:
        if str(error) not in map(str, self.found):
            super().add(error)
