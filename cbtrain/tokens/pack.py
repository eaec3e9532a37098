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

    ``input_ids``, ``labels``, ``position_ids`` int64 ``[T]``; ``weights`` float32 ``[T]``. ``labels[t]`` is the token
    after ``t``, or :data:`IGNORED`, and ``weights[t]`` that token's weight, so no shift is left to do and no document's
    last token predicts the next document's first; ``rows`` int64 ``[S]`` are the places that have a label.
    ``borders`` ``[D + 1]`` are the documents' cumulative lengths. ``supervised`` counts the labels that the loss
    counts, ``weight_sum`` adds their weights up: host numbers, so that nothing waits for a device.
    """

    input_ids: Tensor
    labels: Tensor
    weights: Tensor
    position_ids: Tensor
    rows: Tensor
    borders: list[int]
    supervised: int
    weight_sum: float
    names: list[str]

    @property
    def tokens(self) -> int:
        return self.borders[-1]

    def pinned(self) -> Pack:
        """The same pack in page-locked memory, from which copies to a CUDA device need not wait."""
        return replace(
            self,
            input_ids=self.input_ids.pin_memory(),
            labels=self.labels.pin_memory(),
            weights=self.weights.pin_memory(),
            position_ids=self.position_ids.pin_memory(),
            rows=self.rows.pin_memory(),
        )


def build_pack(documents: Sequence[Document]) -> Pack:
    """Lay ``documents`` end to end."""
    borders = [0, *accumulate(map(len, documents))]
    ids = np.concatenate([document.ids for document in documents]).astype(np.int64)
    weights = np.concatenate([document.weights for document in documents])
    # Labels look one token ahead; a document's last token has none.
    weights = np.append(weights[1:], np.float32(0))
    weights[np.asarray(borders[1:]) - 1] = 0
    labels = np.where(weights > 0, np.append(ids[1:], 0), IGNORED)
    rows = np.flatnonzero(weights > 0)
    return Pack(
        input_ids=torch.from_numpy(ids),
        labels=torch.from_numpy(labels),
        weights=torch.from_numpy(weights),
        position_ids=torch.from_numpy(np.concatenate([np.arange(len(document)) for document in documents])),
        rows=torch.from_numpy(rows),
        borders=borders,
        supervised=len(rows),
        weight_sum=float(weights.sum(dtype=np.float64)),
        names=[document.name for document in documents],
    )


def filler_pack() -> Pack:
    """One token that nobody learns from: what a rank computes on where a step has no pack left for it, so that every
    rank runs the same number of micro-batches."""
    return build_pack([Document("filler", np.zeros(1, np.int32), np.zeros(1, np.float32))])
