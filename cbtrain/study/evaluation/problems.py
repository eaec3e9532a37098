"""Everything that keeps a study from beginning, told at once and before the first call."""

from __future__ import annotations

from cbtrain.errors import Collected

MOST_TOLD = 20
"""Problems that one error names; the others are counted."""


class Problems(Collected):
    """Collects what is wrong with a study."""

    def __init__(self) -> None:
        super().__init__("things keep this study from beginning", MOST_TOLD)
