"""A pack: several documents end to end in one row of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from cbtrain.tokens.document import Document

IGNORED = -100
"""The label of a token that the loss does not count."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One row of ``T`` tokens of ``D`` documents.

    ``input_ids``, ``labels``, ``position_ids`` int64 ``[T]``; ``loss_weights`` float32 ``[T]``. ``labels[t]`` is the
    token after ``t``, or :data:`IGNORED`, and ``loss_weights[t]`` that token's weight in the loss, so no shift is left
    to do and no document's last token predicts the next document's first. ``target_positions`` int64 ``[S]`` are the
    positions that have a label. ``cu_seqlens`` ``[D + 1]`` are the documents' cumulative lengths. ``supervised`` is
    ``S``, ``weight_sum`` the sum of ``loss_weights``: host numbers, so that nothing waits for a device.
    """

    input_ids: Tensor
    labels: Tensor
    loss_weights: Tensor
    position_ids: Tensor
    target_positions: Tensor
    cu_seqlens: list[int]
    supervised: int
    weight_sum: float
    names: list[str]

    @property
    def tokens(self) -> int:
        return self.cu_seqlens[-1]

    def pinned(self) -> Pack:
        """Return the pack in page-locked memory, from which copies to a CUDA device are asynchronous."""
        return replace(
            self,
            input_ids=self.input_ids.pin_memory(),
            labels=self.labels.pin_memory(),
            loss_weights=self.loss_weights.pin_memory(),
            position_ids=self.position_ids.pin_memory(),
            target_positions=self.target_positions.pin_memory(),
        )


def concatenated(packs: Sequence[Pack]) -> Pack:
    """Lay the documents of ``packs`` end to end. A single one is returned as it is."""
    if len(packs) == 1:
        return packs[0]
    begins = accumulate((pack.tokens for pack in packs), initial=0)
    placed = list(zip(packs, begins, strict=False))

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(pack, name) for pack in packs])

    return Pack(
        input_ids=joined("input_ids"),
        labels=joined("labels"),
        loss_weights=joined("loss_weights"),
        position_ids=joined("position_ids"),
        target_positions=torch.cat([pack.target_positions + begin for pack, begin in placed]),
        cu_seqlens=[0, *(begin + end for pack, begin in placed for end in pack.cu_seqlens[1:])],
        supervised=sum(pack.supervised for pack in packs),
        weight_sum=sum(pack.weight_sum for pack in packs),
        names=[name for pack in packs for name in pack.names],
    )


def build_pack(documents: Sequence[Document]) -> Pack:
    """Lay ``documents`` end to end."""
    cu_seqlens = [0, *accumulate(map(len, documents))]
    ids = np.concatenate([document.ids for document in documents]).astype(np.int64)
    loss_weights = np.concatenate([document.loss_weights for document in documents])
    # Labels look one token ahead; a document's last token has none.
    loss_weights = np.append(loss_weights[1:], np.float32(0))
    loss_weights[np.asarray(cu_seqlens[1:]) - 1] = 0
    labels = np.where(loss_weights > 0, np.append(ids[1:], 0), IGNORED)
    target_positions = np.flatnonzero(loss_weights > 0)
    return Pack(
        input_ids=torch.from_numpy(ids),
        labels=torch.from_numpy(labels),
        loss_weights=torch.from_numpy(loss_weights),
        position_ids=torch.from_numpy(np.concatenate([np.arange(len(document)) for document in documents])),
        target_positions=torch.from_numpy(target_positions),
        cu_seqlens=cu_seqlens,
        supervised=len(target_positions),
        weight_sum=float(loss_weights.sum(dtype=np.float64)),
        names=[document.name for document in documents],
    )


def filler_pack() -> Pack:
    """Return a pack of one unsupervised token, for a rank that has no pack left in a step, so that every
    rank runs the same number of micro-batches."""
    return build_pack([Document("filler", np.zeros(1, np.int32), np.zeros(1, np.float32))])
