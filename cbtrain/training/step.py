"""One optimizer step, whole and visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtrain.model.decoder import Decoder, PackedAttention
from cbtrain.tokens.packing import IGNORED, Pack
from cbtrain.training.engines.torch_engine import TorchEngine


@dataclass(frozen=True, slots=True)
class StepResult:
    """``loss`` (mean over the step's supervised tokens, all ranks) and ``grad_norm``; ``skipped`` if non-finite."""

    loss: float
    grad_norm: float
    supervised: int
    skipped: bool


def loss_sum(decoder: Decoder, pack: Pack) -> Tensor:
    """Sum of the cross-entropy over the supervised tokens of ``pack``: 0-d fp32, zero where none is supervised.

    Only supervised rows meet the language-model head: the others cannot change the sum.
    """
    device = decoder.device
    attend = PackedAttention(pack.cu_seqlens, decoder.architecture)
    hidden = decoder(pack.input_ids.to(device), pack.position_ids.to(device), attend)
    rows = (pack.labels != IGNORED).nonzero().squeeze(1)  # counted on the host: no wait for the device
    logits = decoder.logits(hidden[rows.to(device)]).float()
    return F.cross_entropy(logits, pack.labels[rows].to(device), reduction="sum")


def train_step(decoder: Decoder, engine: TorchEngine, packs: Sequence[Pack], learning_rate: float) -> StepResult:
    """Train on ``packs``, the step's packs of all ranks; this rank computes its share of them.

    The loss is the sum over supervised tokens ÷ their number in the whole step: the same gradient however the packs
    are spread over accumulation and ranks.
    """
    supervised = sum(pack.supervised for pack in packs)
    if supervised == 0:
        return StepResult(0.0, 0.0, 0, skipped=True)
    total = torch.zeros((), device=decoder.device)
    for pack in packs[engine.rank :: engine.world]:
        if pack.supervised == 0:
            continue
        loss = loss_sum(decoder, pack) / supervised
        engine.backward(loss)
        total += loss.detach()
    grad_norm = engine.step(learning_rate)
    # The only waits for the device in the step.
    loss_value, norm_value = engine.sum(total).item(), grad_norm.item()
    return StepResult(loss_value, norm_value, supervised, skipped=not torch.isfinite(grad_norm).item())
