"""Records of an optimizer step and of a validation, the input of telemetry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cbtrain.training.flops import Flops


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step. All counts and ``flops`` are of all ranks together: ``tokens`` so far, ``step_tokens`` and
    ``supervised`` of this step. ``loss`` in nats a supervised token. ``wait`` is the time (seconds) it waited for
    input, ``batch`` tells what it has seen apart from what other steps have."""

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


@dataclass(frozen=True, slots=True)
class ValidationRecord:
    """A validation after ``step``: its mean loss (nats a supervised token), also by phase of the session; ``best`` says
    that it is the lowest so far."""

    step: int
    tokens: int
    loss: float
    perplexity: float
    phases: Mapping[str, float]
    best: bool
