"""One optimizer step: forward and backward passes, sum over ranks, update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cbtrain.model.decoder import Decoder
from cbtrain.tokens.stream import MicroBatch, StepInfo
from cbtrain.training.engines.engine import TrainingEngine


@dataclass(frozen=True, slots=True)
class StepResult:
    """``loss`` (mean over the step's supervised tokens, all ranks) and ``grad_norm``; ``skipped`` if one of them is not
    finite, or nothing was supervised."""

    loss: float
    grad_norm: float
    supervised: int
    skipped: bool


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

    The loss is the weighted sum over supervised tokens ÷ the sum of their weights in the whole step, all ranks
    together: the same gradient however the packs are spread over accumulation and ranks. Return None if ``stop``,
    asked after each micro-batch, ended the step: parameters and optimizer are then as they were before it.
    """
    step_info = batches[0].step
    if step_info.weight_sum == 0:
        return NOTHING
    total = torch.zeros((), device=decoder.device)
    for batch in batches:
        if batch.pack.supervised or engine.lockstep:
            if decoder.adapter:
                decoder.adapter.prepare(step, batch.pack.names, batch.pack.cu_seqlens)
            losses, loss_weights = engine.token_losses(batch.pack)
            loss = share_of_loss(losses, loss_weights, step_info)
            engine.backward(loss)
            total += loss.detach()
        if not batch.last and stop():
            engine.discard()
            return None
    return update(engine, learning_rate, total, step_info)


def share_of_loss(losses: Tensor, loss_weights: Tensor, info: StepInfo) -> Tensor:
    """Return what some tokens, with their ``losses`` and ``loss_weights`` (``[S]`` both), add to the loss of a step."""
    loss = (losses * loss_weights).sum() / info.weight_sum
    # An infinite loss can come with a finite gradient: it must not be learnt from either.
    return loss * torch.where(torch.isfinite(loss), 1.0, torch.nan)


def update(engine: TrainingEngine, learning_rate: float, total: Tensor, info: StepInfo) -> StepResult:
    """Update the parameters with the gradients of a step whose loss is ``total`` on this rank."""
    grad_norm, updated = engine.step(learning_rate)
    # The only waits for the device are here and in the line above.
    return StepResult(engine.sum(total).item(), grad_norm.item(), info.supervised, skipped=not updated)
