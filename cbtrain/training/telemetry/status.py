"""Status of a run, for those who show it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cbtrain.training.memory.now import Memory
from cbtrain.training.telemetry.speed import Speed

SMOOTHING = 0.9
"""Weight of the past in the smoothed loss (an exponential mean without the bias towards its start)."""


@dataclass(slots=True)
class SmoothedLoss:
    value: float = math.nan
    _sum: float = 0.0
    _weight: float = 0.0

    def add(self, loss: float) -> None:
        """Take the loss of a step; a skipped step has none that is finite, and leaves the mean as it is."""
        if math.isfinite(loss):
            self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * loss
            self._weight = SMOOTHING * self._weight + 1 - SMOOTHING
            self.value = self._sum / self._weight


@dataclass(slots=True)
class LossCurve:
    """The whole course of the loss in at most :data:`POINTS` means, however many steps there are."""

    points: list[float] = field(default_factory=list)
    _each: int = 1
    _begun: list[float] = field(default_factory=list)

    def add(self, loss: float) -> None:
        if not math.isfinite(loss):
            return
        self._begun.append(loss)
        if len(self._begun) == self._each:
            self.points.append(sum(self._begun) / self._each)
            self._begun = []
        if len(self.points) == POINTS:
            self.points = [(a + b) / 2 for a, b in zip(self.points[::2], self.points[1::2], strict=True)]
            self._each *= 2


POINTS = 48


@dataclass(slots=True)
class Status:
    """What is known after the last step. ``seconds`` are of training; ``left`` (seconds) is an estimate that counts
    pauses as they have been so far. ``accuracy`` is the share of validation pairs ranked rightly, if there are pairs.
    ``state`` is what to say in place of the time left once there is none. ``label`` names it among others that are
    trained in turn with it; empty if it is alone."""

    title: str
    budget: int
    step: int = 0
    epoch: int = 0
    tokens: int = 0
    loss: float = math.nan
    learning_rate: float = math.nan
    grad_norm: float = math.nan
    speed: Speed | None = None
    memory: Memory | None = None
    validation: float | None = None
    best: float | None = None
    accuracy: float | None = None
    best_accuracy: float | None = None
    seconds: float = 0.0
    left: float | None = None
    state: str | None = None
    label: str = ""
    smoothed: SmoothedLoss = field(default_factory=SmoothedLoss)
    curve: LossCurve = field(default_factory=LossCurve)

    @property
    def share(self) -> float:
        """Of the budget, from 0 to 1: the last step may go beyond it."""
        return min(1.0, self.tokens / max(self.budget, 1))
