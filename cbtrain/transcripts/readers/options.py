"""What every reader is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cbtrain.transcripts.source import OnBad, refuse
from cbtrain.transcripts.types import Role


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """``on_bad`` gets each fault; ``labels`` are speakers' labels in place of a text format's own."""

    on_bad: OnBad = refuse
    labels: Mapping[str, Role] = field(default_factory=dict)
