"""Packs: several documents end to end in one row of tokens, nothing dropped, nothing cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from cbtrain.tokens.chat import Document

IGNORED = -100
"""The label of a token that the loss does not count."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One row of ``T`` tokens.

    ``input_ids``, ``labels``, ``position_ids`` int64 ``[T]``; ``labels[t]`` is the token after ``t``, or
    :data:`IGNORED`, so no shift is left to do and no document's last token predicts the next document's first.
    ``cu_seqlens`` (host integers) are the documents' borders; ``supervised`` counts labels that the loss counts.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    cu_seqlens: list[int]
    supervised: int
    names: list[str]

    @property
    def tokens(self) -> int:
        return self.cu_seqlens[-1]


def build_pack(documents: Sequence[Document]) -> Pack:
    """Lay ``documents`` end to end."""
    labels = []
    for document in documents:
        label = np.full(len(document), IGNORED, dtype=np.int64)
        label[:-1] = np.where(document.supervised[1:], document.ids[1:], IGNORED)
        labels.append(label)
    flat = np.concatenate(labels)
    return Pack(
        input_ids=torch.from_numpy(np.concatenate([d.ids for d in documents]).astype(np.int64)),
        labels=torch.from_numpy(flat),
        position_ids=torch.from_numpy(np.concatenate([np.arange(len(d)) for d in documents])),
        cu_seqlens=[0, *accumulate(len(d) for d in documents)],
        supervised=int((flat != IGNORED).sum()),
        names=[d.name for d in documents],
    )


def plan_packs(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing over all documents: lists of indices whose lengths sum to at most ``capacity``.

    A document longer than ``capacity`` gets a pack of its own. Ties keep the order given. The set of free sizes is one
    integer used as a bit set, so the best fit is a shift and a lowest bit: O(n log n) for the sort, O(capacity / 64)
    per document after it.
    """
    packs: list[list[int]] = []
    with_room: dict[int, list[int]] = {}
    sizes = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        fitting = sizes >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            pack = with_room[room].pop()
            if not with_room[room]:
                sizes ^= 1 << room
        else:
            room, pack = max(capacity, length), len(packs)
            packs.append([])
        packs[pack].append(index)
        left = room - length
        if left:
            with_room.setdefault(left, []).append(pack)
            sizes |= 1 << left
    return packs
