"""How the runs of a sweep are trained together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """``at_once``: how many runs of a rank take turns, None for all; ``joint``: in one pass where it pays.
    ``command`` has all options of the command line: ranks must have the same."""

    at_once: int | None = None
    joint: bool = False
    command: Mapping[str, Any] = field(default_factory=dict)
