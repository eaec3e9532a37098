"""Records of an optimizer step and of a validation, the input of telemetry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cbtrain.training.flops import Flops
from cbtrain.training.progress import Measured


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step. All counts and ``flops`` are of all ranks together: ``tokens`` so far, ``step_tokens`` and
    ``supervised`` of this step. ``loss`` in nats a supervised token. ``wait`` is the time (seconds) it waited for
    input, ``batch`` tells what it has seen apart from what other steps have. ``pairs`` is what
    :func:`cbtrain.training.objectives.measures.means_of` says of pairs of answers, whose loss is the objective's."""

    step: int
    epoch: int
    tokens: int
    step_tokens: int
    supervised: int
    loss: float
    learning_rate: float
    grad_norm: float
    skipped: bool
    flops: Flops
    wait: float
    batch: str = ""
    pairs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ValidationRecord:
    """A validation after ``step``; ``best`` says that it is the best so far."""

    step: int
    tokens: int
    measured: Measured
    best: bool

    @property
    def perplexity(self) -> float | None:
        """None for pairs of answers, whose loss is no likelihood alone."""
        return None if self.measured.pairs else math.exp(min(self.measured.loss, 700.0))
