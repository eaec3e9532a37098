"""Progress of a training stage: everything except tensors that the next step depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cbtrain.journal import Check, is_amount, is_count, is_section, or_none
from cbtrain.tokens.stream import StepInfo
from cbtrain.training.config import StageConfig
from cbtrain.training.step import StepResult


def _is_position(value: Any) -> bool:
    """Return whether ``value`` is the position of a stream, or of one that has not begun."""
    keys = {"epoch", "step", "done", "plan"}
    return value == {} or (isinstance(value, dict) and value.keys() == keys and all(map(is_count, value.values())))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_curve(value: Any) -> bool:
    """Return whether ``value`` is a curve. Losses need not be finite: training continues either way."""
    return isinstance(value, list) and all(
        is_section(point)
        and is_count(point.get("step"))
        and is_count(point.get("tokens"))
        and _is_number(point.get("validation_loss"))
        and is_section(point.get("phases", {}))
        and is_section(point.get("pairs", {}))
        for point in value
    )


CHECKS: dict[str, Check] = {
    **dict.fromkeys(("step", "tokens", "scheduled", "supervised", "skipped", "waited", "joint_steps"), is_count),
    **dict.fromkeys(("validated", "best_step"), or_none(is_count)),
    "packs_per_step": or_none(lambda value: is_count(value) and value > 0),
    "seconds": is_amount,
    "position": _is_position,
    **dict.fromkeys(("best_loss", "best_error"), or_none(lambda value: _is_number(value) and math.isfinite(value))),
    "recent": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "curve": _is_curve,
    "skipped_batches": lambda value: isinstance(value, list) and all(map(is_section, value)),
}
"""Allowed values of each counter when it is read back."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a validation has found: the mean loss (nats a supervised token, or the objective's of a pair of answers),
    also by phase of the session, and of pairs what :func:`~.objectives.measures.means_of` says."""

    loss: float
    phases: Mapping[str, float] = field(default_factory=dict)
    pairs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> float | None:
        """Share of pairs of answers that the model ranks wrongly; None if they are no pairs."""
        return 1 - self.pairs["accuracy"] if self.pairs else None


@dataclass(slots=True)
class Progress:
    """JSON-able counters of one stage; losses are nats per supervised token, or an objective's per pair of answers.

    ``tokens`` counts all that were computed, ``scheduled`` those of steps that were made, by which the learning rate
    goes. ``joint_steps`` were computed in passes with other runs (:mod:`cbtrain.training.joint`), up to rounding: with
    none, the run is what it would be alone, to the bit. ``position`` is the stream's
    (:meth:`cbtrain.tokens.stream.PackStream.state`) and ``packs_per_step`` what it was planned with. ``validated`` is
    the number of tokens at the last validation, ``waited`` counts validations since the best, ``recent`` are the losses
    of the steps since then. ``skipped_batches`` names the documents of steps in a row that were not finite.
    """

    step: int = 0
    tokens: int = 0
    scheduled: int = 0
    supervised: int = 0
    skipped: int = 0
    joint_steps: int = 0
    seconds: float = 0.0
    packs_per_step: int | None = None
    position: dict[str, int] = field(default_factory=dict)
    validated: int | None = None
    waited: int = 0
    best_loss: float | None = None
    best_error: float | None = None
    best_step: int | None = None
    recent: list[float] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    skipped_batches: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, values: Any) -> Progress:
        """Return the progress that :meth:`as_dict` wrote as ``values``. Raises ValueError on what it cannot have
        written."""
        if not isinstance(values, dict) or values.keys() - CHECKS.keys():
            raise ValueError("these are not counters of training")
        for name, value in values.items():
            if not CHECKS[name](value):
                raise ValueError(f"{name} is unusable")
        return cls(**values)

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

    def record_validation(self, measured: Measured) -> bool:
        """Add a validation to the curve. Return True if it is the best so far: the one with the lowest loss; of pairs
        the one that ranks most rightly, of those the one with the lowest loss."""
        loss = measured.loss
        recent = sum(self.recent) / len(self.recent) if self.recent else None
        point = {"step": self.step, "tokens": self.tokens, "train_loss": recent, "validation_loss": loss}
        told = {"pairs": dict(measured.pairs)} if measured.pairs else {}
        self.curve.append({**point, "phases": dict(measured.phases), **told})
        self.recent.clear()
        self.validated = self.tokens
        best = self.best_loss is None or (measured.error or 0, loss) < (self.best_error or 0, self.best_loss)
        if best and not math.isnan(loss):
            self.best_loss, self.best_step, self.best_error, self.waited = loss, self.step, measured.error, 0
            return True
        self.waited += 1
        return False

    def ended_by(self, config: StageConfig) -> str:
        """Return what ended the stage: ``validation`` (no improvement), ``budget`` (tokens) or ``epochs``."""
        if self.waited >= config.patience:
            return "validation"
        spent = config.token_budget is not None and self.tokens >= config.token_budget
        return "budget" if spent else "epochs"

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
