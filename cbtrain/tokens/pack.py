"""A pack: several documents end to end in one row of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbtrain.tokens.document import Branches, Document

IGNORED = -100
"""The label of a token that the loss does not count."""


@dataclass(frozen=True, slots=True)
class PackedPair:
    """A pair of answers in a pack: positions of its beginning, of both branches and of its end in the row, and how many
    labels lie before, in the first and in the second branch. ``reference`` is that of :class:`Branches`."""

    begin: int
    chosen: int
    rejected: int
    end: int
    labels: tuple[int, int, int]
    weight: float
    reference: tuple[float, float] | None

    @property
    def borders(self) -> tuple[int, int, int, int]:
        """Where attention may not cross (:class:`cbtrain.model.attention.branches.Borders`)."""
        return self.begin, self.chosen, self.rejected, self.end

    def shifted(self, by: int) -> PackedPair:
        """Return the pair ``by`` positions later."""
        begin, chosen, rejected, end = (border + by for border in self.borders)
        return replace(self, begin=begin, chosen=chosen, rejected=rejected, end=end)


@dataclass(frozen=True, slots=True)
class Pack:
    """One row of ``T`` tokens of ``D`` documents.

    ``input_ids``, ``labels``, ``position_ids`` int64 ``[T]``; ``loss_weights`` float32 ``[T]``. ``labels[t]`` is the
    token after ``t``, or :data:`IGNORED`, and ``loss_weights[t]`` that token's weight in the loss, so no shift is left
    to do and no document's last token predicts the next document's first. ``target_positions`` int64 ``[S]`` are the
    positions that have a label. ``cu_seqlens`` ``[D + 1]`` are the documents' cumulative lengths. ``supervised`` is
    ``S``, ``weight_sum`` the sum of ``loss_weights``: host numbers, so that nothing waits for a device. ``pairs`` are
    the documents that are pairs of answers, in order; positions of a branch go on from what both share.
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
    pairs: tuple[PackedPair, ...] = ()

    @property
    def tokens(self) -> int:
        return self.cu_seqlens[-1]

    @property
    def borders(self) -> list[tuple[int, int, int, int]]:
        """The borders of its pairs (:attr:`PackedPair.borders`)."""
        return [pair.borders for pair in self.pairs]

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
        pairs=tuple(pair.shifted(begin) for pack, begin in placed for pair in pack.pairs),
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
        position_ids=torch.from_numpy(np.concatenate([_positions(document) for document in documents])),
        target_positions=torch.from_numpy(target_positions),
        cu_seqlens=cu_seqlens,
        supervised=len(target_positions),
        weight_sum=float(loss_weights.sum(dtype=np.float64)),
        names=[document.name for document in documents],
        pairs=tuple(
            _packed_pair(document.branches, begin, end, loss_weights[begin:end] > 0)
            for document, begin, end in zip(documents, cu_seqlens[:-1], cu_seqlens[1:], strict=True)
            if document.branches
        ),
    )


def _positions(document: Document) -> NDArray[np.int64]:
    if document.branches is None:
        return np.arange(len(document))
    chosen, rejected = document.branches.chosen, document.branches.rejected
    # Each branch goes on where the shared tokens end, with the last of them once more.
    return np.concatenate([np.arange(rejected), np.arange(len(document) - rejected) + chosen])


def _packed_pair(branches: Branches, begin: int, end: int, labelled: NDArray[np.bool_]) -> PackedPair:
    shared, chosen, rejected = (int(part.sum()) for part in np.split(labelled, [branches.chosen, branches.rejected]))
    counts = shared, chosen, rejected
    place = begin, begin + branches.chosen, begin + branches.rejected, end
    return PackedPair(*place, counts, branches.weight, branches.reference)


def filler_pack() -> Pack:
    """Return a pack of one unsupervised token, for a rank that has no pack left in a step, so that every
    rank runs the same number of micro-batches."""
    return build_pack([Document("filler", np.zeros(1, np.int32), np.zeros(1, np.float32))])
