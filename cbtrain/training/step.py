"""One optimizer step: forward and backward passes, sum over ranks, update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cbtrain.model.decoder import Decoder
from cbtrain.tokens.stream import MicroBatch, StepInfo
from cbtrain.training.engines.engine import TrainingEngine
from cbtrain.training.objectives.measures import means_of, nothing
from cbtrain.training.objectives.objective import Terms


@dataclass(frozen=True, slots=True)
class StepResult:
    """``loss`` (mean over the step's supervised tokens or pairs, all ranks) and ``grad_norm``; ``skipped`` if one of
    them is not finite, or nothing was supervised. ``pairs`` has what :func:`~.objectives.measures.means_of` says."""

    loss: float
    grad_norm: float
    supervised: int
    skipped: bool
    pairs: Mapping[str, Any] = field(default_factory=dict)


NOTHING = StepResult(0.0, 0.0, 0, skipped=True)
"""The result of a step in which nothing is supervised."""


def train_step(
    decoder: Decoder,
    engine: TrainingEngine,
    batches: Sequence[MicroBatch],
    learning_rate: float,
    *,
    step: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> StepResult | None:
    """Train on ``batches``, this rank's micro-batches of optimizer step ``step``.

    The loss is the weighted sum over supervised tokens, or pairs of answers, ÷ the sum of their weights in the whole
    step, all ranks together: the same gradient however the packs are spread over accumulation and ranks. Return None if
    ``stop``, asked after each micro-batch, ended the step: parameters and optimizer are then as they were before it.
    """
    step_info = batches[0].step
    if step_info.weight_sum == 0:
        return NOTHING
    total, measures = torch.zeros((), device=decoder.device), nothing(decoder.device)
    for batch in batches:
        if batch.pack.supervised or engine.lockstep:
            if decoder.adapter:
                decoder.adapter.prepare(step, batch.pack.names, batch.pack.cu_seqlens)
            terms = engine.terms(batch.pack)
            loss = share_of_loss(terms, step_info)
            engine.backward(loss)
            total += loss.detach()
            measures += terms.measures
        if not batch.last and stop():
            engine.discard()
            return None
    return update(engine, learning_rate, total, step_info, measures)


def share_of_loss(terms: Terms, info: StepInfo) -> Tensor:
    """Return what some tokens, or pairs of answers, add to the loss of a step."""
    loss = (terms.values * terms.weights).sum() / info.weight_sum
    # An infinite loss can come with a finite gradient: it must not be learnt from either.
    return loss * torch.where(torch.isfinite(loss), 1.0, torch.nan)


def update(engine: TrainingEngine, learning_rate: float, total: Tensor, info: StepInfo, measures: Tensor) -> StepResult:
    """Update the parameters with the gradients of a step whose loss is ``total`` on this rank, and whose pairs have
    ``measures``."""
    grad_norm, updated = engine.step(learning_rate)
    # The only waits for the device are here and in the line above.
    loss, norm = engine.sum(total).item(), grad_norm.item()
    pairs = means_of(engine.sum(measures).tolist()) if engine.objective.of_pairs else {}
    return StepResult(loss, norm, info.supervised, skipped=not updated, pairs=pairs)
