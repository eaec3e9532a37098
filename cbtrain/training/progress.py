"""Progress of a training stage: everything except tensors that the next step depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cbtrain.tokens.stream import StepInfo
from cbtrain.training.config import StageConfig
from cbtrain.training.step import StepResult


@dataclass(slots=True)
class Progress:
    """JSON-able counters of one stage; losses are nats per supervised token.

    ``tokens`` counts all that were computed, ``scheduled`` those of steps that were made, by which the learning rate
    goes. ``position`` is the stream's (:meth:`cbtrain.tokens.stream.PackStream.state`) and ``packs_per_step`` what it
    was planned with. ``validated`` is the number of tokens at the last validation, ``waited`` counts validations since
    the best, ``recent`` are the losses of the steps since then. ``skipped_batches`` names the documents of steps in a
    row that were not finite.
    """

    step: int = 0
    tokens: int = 0
    scheduled: int = 0
    supervised: int = 0
    skipped: int = 0
    seconds: float = 0.0
    packs_per_step: int | None = None
    position: dict[str, int] = field(default_factory=dict)
    validated: int | None = None
    waited: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    recent: list[float] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    skipped_batches: list[dict[str, Any]] = field(default_factory=list)

    def advance(self, info: StepInfo, outcome: StepResult, position: dict[str, int]) -> None:
        """Count an optimizer step, after which the stream is at ``position``. The schedule counts tokens of steps that
        were made, the budget counts all tokens."""
        self.step += 1
        self.tokens += info.tokens
        self.supervised += outcome.supervised
        self.position = position
        if outcome.skipped:
            self.skipped += 1
            return
        self.scheduled += info.tokens
        self.skipped_batches.clear()
        self.recent.append(outcome.loss)

    def record_validation(self, loss: float, phases: Mapping[str, float]) -> bool:
        """Add a validation loss (nats a supervised token; also by phase) to the curve. Return True if it is the lowest
        so far."""
        recent = sum(self.recent) / len(self.recent) if self.recent else None
        point = {"step": self.step, "tokens": self.tokens, "train_loss": recent, "validation_loss": loss}
        self.curve.append({**point, "phases": dict(phases)})
        self.recent.clear()
        self.validated = self.tokens
        best = self.best_loss is None or loss < self.best_loss
        if best and not math.isnan(loss):
            self.best_loss, self.best_step, self.waited = loss, self.step, 0
            return True
        self.waited += 1
        return False

    def ended_by(self, config: StageConfig) -> str:
        """Return what ended the stage: ``validation`` (no improvement), ``budget`` (tokens) or ``epochs``."""
        if self.waited >= config.patience:
            return "validation"
        return "budget" if self.tokens >= config.token_budget else "epochs"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def learning_rate(progress: float, config: StageConfig) -> float:
    """Return the rate at ``progress`` in [0, 1]: linear warm-up, then constant, linear or cosine decay."""
    if progress < config.warmup:
        # The first step must move: progress is the share of tokens *before* the step.
        return config.learning_rate * max(progress, 0.02 * config.warmup) / config.warmup
    done = min(1.0, (progress - config.warmup) / (1 - config.warmup))
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "linear":
        return config.learning_rate * (1 - done)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
