"""Attention over documents of which some end in two branches: pairs of answers to one shared beginning.

Queries stay as they lie. Keys and values of the shared beginning are gathered once more before the second branch, so
that every back-end takes a branch for a document that is causal from the bottom right. Their gradients are summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from cbtrain.model.attention.cu_seqlens import CuSeqlens
from cbtrain.model.attention.packed import choose_backend, packed_attention
from cbtrain.model.attention.pieces import attend_pieces, trains_on_cpu

Borders = tuple[int, int, int, int]
"""Positions in the row: a document's beginning, its first branch, its second branch, its end."""


class BranchedAttention:
    """``attend`` for documents at ``cu_seqlens``, of which those with ``borders`` have two branches that see what is
    before both, and not each other."""

    def __init__(
        self, cu_seqlens: Sequence[int], borders: Sequence[Borders], window: int | None, backend: str = "auto"
    ) -> None:
        self.window, self.backend = window, backend
        self.spans = spans_of(cu_seqlens, borders)
        ends = [0]
        for _, _, pieces in self.spans:
            ends.append(ends[-1] + sum(end - begin for begin, end in pieces))
        self.queries = CuSeqlens([0, *(end for _, end, _ in self.spans)])
        self.keys = CuSeqlens(ends)
        self._rows: Tensor | None = None

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        name = choose_backend(self.backend, q.device, q.dtype, q.shape[-1])
        if name == "sdpa" and trains_on_cpu(q, k, v):
            return attend_pieces(q, k, v, self.spans, self.window)
        rows = self.rows(q.device)
        return packed_attention(
            q,
            k.index_select(0, rows),
            v.index_select(0, rows),
            cu_seqlens_q=self.queries,
            cu_seqlens_k=self.keys,
            window=self.window,
            backend=name,
        )

    def rows(self, device: torch.device) -> Tensor:
        """Return the rows of keys and values in the order in which branches see them, int64."""
        if self._rows is None or self._rows.device != device:
            parts = [torch.arange(begin, end) for _, _, pieces in self.spans for begin, end in pieces]
            self._rows = torch.cat(parts).to(device, non_blocking=True)
        return self._rows


Span = tuple[int, int, tuple[tuple[int, int], ...]]
"""First and last + 1 of some queries, and the rows that the last of them sees, in order."""


def spans_of(cu_seqlens: Sequence[int], borders: Sequence[Borders]) -> list[Span]:
    """Return the queries that share what they see, in order: a document, or a branch of one; the first branch comes
    with the beginning."""
    branched = {begin: (chosen, rejected, end) for begin, chosen, rejected, end in borders}
    spans: list[Span] = []
    for begin, end in pairwise(cu_seqlens):
        if begin not in branched:
            spans.append((begin, end, ((begin, end),)))
            continue
        chosen, rejected, _ = branched[begin]
        spans.append((begin, rejected, ((begin, rejected),)))
        spans.append((rejected, end, ((begin, chosen), (rejected, end))))
    return spans
