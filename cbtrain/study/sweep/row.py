"""One run of a sweep in its table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run. Losses are nats per supervised token. ``held_out_loss`` is what runs of one ``speaker`` are compared by:
    on the sessions that ``held_out_on`` names, None if there is none or it cannot be compared (``note`` says why). Of
    pairs of answers the loss is the objective's, and they are compared by ``accuracy`` first: the share of validation
    pairs ranked rightly at the best validation. ``joint_steps`` of its ``steps`` were computed in passes with other
    runs: equal to a single run up to rounding. ``general_rise`` is by which share of the base's the perplexity on
    general text has risen, ``general_kl`` the divergence from the base there
    (:class:`cbtrain.training.forgetting.TextForgetting`). ``stopped`` says what ended the run; ``failed`` what was
    wrong."""

    name: str
    speaker: str
    differs: dict[str, Any]
    held_out_loss: float | None = None
    held_out_on: str = ""
    validation_before: float | None = None
    validation_best: float | None = None
    accuracy: float | None = None
    best_step: int | None = None
    general_rise: float | None = None
    general_kl: float | None = None
    steps: int = 0
    joint_steps: int = 0
    tokens: int = 0
    epochs: float = 0.0
    stopped: str = ""
    trainable: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    failed: str = ""
    note: str = ""
    curve: list[dict[str, Any]] = field(default_factory=list)

    @property
    def perplexity(self) -> float | None:
        if self.held_out_loss is None or self.accuracy is not None:
            return None
        return math.exp(min(self.held_out_loss, 700.0))

    @property
    def rank(self) -> tuple[bool, float, float]:
        """By which runs of one speaker and objective are ordered, the best first."""
        return self.held_out_loss is None, -(self.accuracy or 0.0), self.held_out_loss or 0.0
