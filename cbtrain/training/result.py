"""What a training stage came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class TrainingResult:
    """What was trained, on how much, and what it came to. Losses are nats per supervised token.

    ``share_of_corpus`` is the share of the training split that the model has seen; the caller, who chose the
    documents, fills it in. ``data`` says how the documents were laid out and packed, ``speed`` is
    :meth:`Telemetry.summary`, ``memory`` a :class:`MemorySplit`. ``planned_tokens`` is what the schedule goes by:
    ``token_budget``, or fewer where ``max_epochs`` ends the run before.
    """

    name: str
    method: str
    parameters: int
    trainable: int
    token_budget: int
    planned_tokens: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    epochs: float = 0.0
    steps: int = 0
    skipped_steps: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    share_of_corpus: float = 0.0
    stopped: str = "budget"
    validation_before: float | None = None
    validation_best: float | None = None
    best_step: int | None = None
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    engine: str = "torch"
    ranks: int = 1
    data: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
