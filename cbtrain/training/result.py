"""The result of a training stage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from cbtrain.model.weights.memory import weight_memory
from cbtrain.training.forgetting import TextForgetting
from cbtrain.training.stage_run import StageRun
from cbtrain.training.validation import with_perplexity


@dataclass(slots=True)
class TrainingResult:
    """Result of a training stage: size, amount of data, losses, speed and memory. Losses are nats per supervised token.

    ``share_of_corpus`` is the share of the training split that the model has seen; the caller, who chose the
    documents, fills it in. ``data`` says how the documents were laid out and packed, ``speed`` is
    :meth:`Telemetry.summary`, ``memory`` a :class:`MemorySplit`. ``planned_tokens`` is what the schedule goes by:
    ``max_epochs``, or less if ``token_budget`` ends the run before. ``epochs`` are passes over the documents, which are
    not all of the corpus if there is a budget. ``joint_steps`` were computed in passes with other runs, up to rounding.
    Without validation documents there are no validation losses; of pairs of answers they are losses of the
    ``objective``, and ``pairs`` and ``pairs_before`` have what :func:`~.objectives.measures.means_of` says at the best
    validation and at the first. ``forgetting``, which the caller fills in, has a
    :class:`~cbtrain.training.forgetting.TextForgetting` for each text that was not trained.
    """

    name: str
    method: str
    parameters: int
    trainable: int
    token_budget: int | None
    planned_tokens: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    epochs: float = 0.0
    steps: int = 0
    skipped_steps: int = 0
    joint_steps: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    share_of_corpus: float = 0.0
    stopped: str = "budget"
    validation_before: float | None = None
    validation_best: float | None = None
    best_step: int | None = None
    objective: str = "sft"
    pairs: dict[str, Any] = field(default_factory=dict)
    pairs_before: dict[str, Any] = field(default_factory=dict)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    forgetting: list[TextForgetting] = field(default_factory=list)
    engine: str = "torch"
    ranks: int = 1
    data: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def result_of(run: StageRun) -> TrainingResult:
    """Return the result of ``run``, which has ended. Every rank must call it."""
    progress, settings, engine = run.progress, run.settings, run.engine
    static, weights = engine.static_memory(), weight_memory(run.stage.decoder)
    split = run.meter.split(
        weights=weights.bytes, adapters=static.adapters, gradients=static.gradients, optimizer=static.optimizer
    )
    best = next((point for point in progress.curve if point["step"] == progress.best_step), {})
    seconds = run.telemetry.seconds
    return TrainingResult(
        name=run.stage.name,
        method=settings.method,
        parameters=run.parameters,
        trainable=run.trained,
        token_budget=settings.token_budget,
        planned_tokens=run.budget,
        tokens=progress.tokens,
        supervised_tokens=progress.supervised,
        epochs=round(progress.tokens / run.stream.tokens_per_epoch, 3),
        steps=progress.step,
        skipped_steps=progress.skipped,
        joint_steps=progress.joint_steps,
        seconds=round(seconds, 2),
        tokens_per_second=round(progress.tokens / max(seconds, 1e-9), 1),
        stopped=progress.ended_by(settings),
        validation_before=progress.curve[0]["validation_loss"] if progress.curve else None,
        validation_best=progress.best_loss,
        best_step=progress.best_step,
        objective=settings.objective,
        pairs=best.get("pairs", {}),
        pairs_before=progress.curve[0].get("pairs", {}) if progress.curve else {},
        phases={name: with_perplexity(mean) for name, mean in best.get("phases", {}).items()},
        engine=run.stage.runtime.engine_name,
        ranks=engine.world,
        data=run.stream.describe(),
        speed=run.telemetry.summary(),
        memory=split.as_dict(),
        curve=progress.curve,
    )
