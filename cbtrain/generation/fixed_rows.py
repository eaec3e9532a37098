"""Sizes of forward passes in which a row's result does not depend on the other rows, found by trying.

The kernels of matrix libraries differ by the number of rows, and with them the order of sums: the same token gets other
last bits alone than among others (He et al. 2025, "Defeating nondeterminism in LLM inference"). At one fixed number of
rows most libraries compute each row alike, wherever it stands; which numbers do is found out here, at the start.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cbtrain.model.decoder import Decoder

CANDIDATES = (16, 32, 64, 128, 256)


@torch.inference_mode()
def fixed_sizes(decoder: Decoder, *, max_rows: int) -> tuple[int, ...]:
    """Return numbers of rows, ascending, at which each row has the same bits in any place, among any others, and at
    each of these numbers; none if there are no such numbers.

    All linears, norms and the head take part, and the adapter that is on; a token attends to itself alone.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(decoder.architecture.vocabulary, (CANDIDATES[-1],), generator=generator).to(decoder.device)
    sizes: list[int] = []
    reference: Tensor | None = None
    for size in (c for c in CANDIDATES if c <= max(max_rows, CANDIDATES[0])):
        rows = _rows(decoder, ids[:size])
        if not _independent(decoder, ids[:size], rows):
            continue
        if reference is None:
            reference = rows
        if torch.equal(rows[: len(reference)], reference):
            sizes.append(size)
    return tuple(sizes)


def _independent(decoder: Decoder, ids: Tensor, rows: Tensor) -> bool:
    """Return whether ``rows``, the results of ``ids``, are the same in other places and among other tokens."""
    size = len(ids)
    for shift in (1, size // 2, size - 1):
        if not torch.equal(_rows(decoder, ids.roll(shift)), rows.roll(shift, 0)):
            return False
    padded = torch.where(torch.arange(size, device=ids.device) < size // 2, ids, 0)
    return torch.equal(_rows(decoder, padded)[: size // 2], rows[: size // 2])


def _rows(decoder: Decoder, ids: Tensor) -> Tensor:
    """Return hidden states and logits of ``ids`` at position 0, ``[n, hidden + vocabulary]``."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)

    hidden = decoder(ids, torch.zeros_like(ids), attend)
    return torch.cat([hidden, decoder.logits(hidden)], dim=-1)
