"""One optimizer step, whole and visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtrain.model.decoder import Decoder
from cbtrain.tokens.pack import Pack
from cbtrain.tokens.stream import MicroBatch
from cbtrain.training.engines.torch_engine import TorchEngine


@dataclass(frozen=True, slots=True)
class StepResult:
    """``loss`` (mean over the step's supervised tokens, all ranks) and ``grad_norm``; ``skipped`` if non-finite."""

    loss: float
    grad_norm: float
    supervised: int
    skipped: bool


def loss_sum(decoder: Decoder, pack: Pack, *, weighted: bool = True) -> Tensor:
    """Weighted sum of the cross-entropy over the supervised tokens of ``pack``: 0-d fp32, zero where there is none.
    With ``weighted=False`` each of them counts once.

    Only supervised rows meet the language-model head: the others cannot change the sum.
    """

    def on_device(tensor: Tensor) -> Tensor:
        return tensor.to(decoder.device, non_blocking=True)  # no wait, where the pack is page-locked

    attend = decoder.packed(pack.borders)
    hidden = decoder(on_device(pack.input_ids), on_device(pack.position_ids), attend)
    rows = on_device(pack.rows)
    logits = decoder.logits(hidden[rows]).float()
    losses = F.cross_entropy(logits, on_device(pack.labels)[rows], reduction="none")
    return (losses * on_device(pack.weights)[rows]).sum() if weighted else losses.sum()


def train_step(
    decoder: Decoder, engine: TorchEngine, batches: Sequence[MicroBatch], learning_rate: float, *, step: int = 0
) -> StepResult:
    """Train on ``batches``, this rank's micro-batches of optimizer step ``step``.

    The loss is the weighted sum over supervised tokens ÷ the sum of their weights in the whole step, all ranks
    together: the same gradient however the packs are spread over accumulation and ranks.
    """
    facts = batches[0].step
    if facts.weight_sum == 0:
        return StepResult(0.0, 0.0, 0, skipped=True)
    total = torch.zeros((), device=decoder.device)
    for batch in batches:
        if batch.pack.supervised == 0:
            continue
        if decoder.adapter:
            decoder.adapter.prepare(step, batch.pack.names, batch.pack.borders)
        loss = loss_sum(decoder, batch.pack) / facts.weight_sum
        engine.backward(loss)
        total += loss.detach()
    grad_norm = engine.step(learning_rate)
    # The only waits for the device in the step.
    loss_value, norm_value = engine.sum(total).item(), grad_norm.item()
    return StepResult(loss_value, norm_value, facts.supervised, skipped=not torch.isfinite(grad_norm).item())
