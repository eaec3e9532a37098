"""Loss and perplexity on documents that are not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cbtrain.model.decoder import Decoder
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import Pack, build_pack, filler_pack
from cbtrain.tokens.packing import plan_packs
from cbtrain.training.engines.engine import TrainingEngine
from cbtrain.training.loss import loss_sum


@dataclass(frozen=True, slots=True)
class Loss:
    """Summed cross-entropy (nats) over ``tokens`` supervised tokens."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        return self.total / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.mean, 700.0))


@torch.inference_mode()
def measure_loss(decoder: Decoder, documents: Sequence[Document], pack_tokens: int) -> Loss:
    """Return the loss of ``decoder`` on the supervised tokens of ``documents``, each counted once, dropout off."""
    was_training = decoder.training
    decoder.eval()
    total, tokens = 0.0, 0
    for pack in packs_of(documents, pack_tokens):
        if pack.supervised:
            total += loss_sum(decoder, pack, weighted=False).item()
            tokens += pack.supervised
    decoder.train(was_training)
    return Loss(total, tokens)


@torch.no_grad()
def validate(
    engine: TrainingEngine,
    documents: Sequence[Document],
    pack_tokens: int,
    groups: Sequence[str],
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Loss] | None:
    """Return :func:`measure_loss` of all ranks together by group; document i belongs to ``groups[i]``.

    Every rank computes as many packs as any other and gets the same numbers to the last bit. Return None if ``stop``,
    asked after each pack, ended it.
    """
    decoder, names = engine.decoder, sorted(set(groups))
    number = {name: pack_number for pack_number, name in enumerate(names)}
    packs, members = _packs(documents, pack_tokens)
    sums = torch.zeros(2, len(names), dtype=torch.float64, device=decoder.device)
    was_training = decoder.training
    decoder.eval()
    stopped = False
    for first in range(0, len(packs), engine.world):
        pack_number = first + engine.rank
        group_numbers = [number[groups[i]] for i in members[pack_number]] if pack_number < len(packs) else [0]
        _add(sums, engine, packs[pack_number] if pack_number < len(packs) else filler_pack(), group_numbers)
        if stopped := stop():
            break
    decoder.train(was_training)
    if stopped:
        return None
    totals, tokens = engine.sum(sums).tolist()
    return {name: Loss(totals[pack_number], round(tokens[pack_number])) for name, pack_number in number.items()}


def overall(losses: dict[str, Loss]) -> Loss:
    """Return the loss over all groups."""
    return Loss(sum(loss.total for loss in losses.values()), sum(loss.tokens for loss in losses.values()))


def _add(sums: Tensor, engine: TrainingEngine, pack: Pack, groups: Sequence[int]) -> None:
    losses, _ = engine.token_losses(pack)
    document = torch.bucketize(pack.target_positions, torch.tensor(pack.cu_seqlens[1:]), right=True)
    group = torch.tensor(groups)[document].to(sums.device)
    sums[0].index_add_(0, group, losses.double())
    sums[1].index_add_(0, group, torch.ones_like(losses, dtype=torch.float64))


def packs_of(documents: Sequence[Document], pack_tokens: int) -> list[Pack]:
    """Return ``documents`` in packs of ``pack_tokens`` tokens, or a longer one by itself."""
    return _packs(documents, pack_tokens)[0]


def _packs(documents: Sequence[Document], pack_tokens: int) -> tuple[list[Pack], list[list[int]]]:
    """Return the documents as packs, and the indices of each pack's documents."""
    lengths = np.asarray([len(document) for document in documents], dtype=np.int64)
    members = [list(map(int, pack)) for pack in plan_packs(lengths, pack_tokens, search=False).packs]
    return [build_pack([documents[i] for i in pack]) for pack in members], members


def with_perplexity(mean: float) -> dict[str, float]:
    """Return a mean loss and its perplexity, for the summary."""
    return {"loss": mean, "perplexity": Loss(mean, 1).perplexity if not math.isnan(mean) else math.nan}
