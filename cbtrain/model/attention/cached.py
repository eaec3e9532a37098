"""Attention of new tokens over a key-value cache that is read in place, for generation.

The cache holds one conversation in each slot. A chunk is some new tokens of one conversation: one when it is answering,
many when a prompt is read. All chunks of a step come in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtrain.model.attention.cu_seqlens import CuSeqlens
from cbtrain.model.attention.packed import packed_attention
from cbtrain.model.attention.torch_varlen import Slots, attend_slots, slots_obstacle


@dataclass(frozen=True, slots=True)
class Chunk:
    """``length`` new tokens after the first ``start`` of the conversation in ``slot``."""

    slot: int
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


class CachedAttention:
    """``attend`` of a decoder for ``chunks``, whose tokens lie end to end in this order. It writes the new keys and
    values to ``keys`` and ``values [layers, slots, kv_heads, context, head_dim]`` first. Rows after the chunks' own are
    padding: their result is 0.

    ``backend`` is the one of :func:`cbtrain.model.attention.packed.packed_attention`. With ``by_row`` each token is
    computed alone, so that its result does not depend on how many come with it.
    """

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        chunks: Sequence[Chunk],
        window: int | None,
        *,
        backend: str = "auto",
        by_row: bool = False,
    ) -> None:
        device = keys.device
        self.keys, self.values, self.window, self.backend = keys, values, window, backend
        if by_row:
            chunks = [Chunk(c.slot, c.start + i, 1) for c in chunks for i in range(c.length)]
        self.row_slots = torch.tensor([c.slot for c in chunks for _ in range(c.length)], device=device)
        self.row_positions = torch.tensor([p for c in chunks for p in range(c.start, c.end)], device=device)
        firsts = list(accumulate((c.length for c in chunks), initial=0))
        self.in_one_launch = backend in ("auto", "torch-varlen") and not by_row
        if self.in_one_launch:
            self.in_one_launch = slots_obstacle(device, keys.dtype, keys.shape[-1], keys.shape[-2]) is None
        if self.in_one_launch:
            self.seen = Slots(
                CuSeqlens(firsts),
                torch.tensor([c.end for c in chunks], dtype=torch.int32, device=device),
                torch.tensor([[c.slot] for c in chunks], dtype=torch.int32, device=device),
                max(c.end for c in chunks),
            )
            return
        rows = list(zip(firsts[:-1], chunks, strict=True))
        single = [(row, c) for row, c in rows if c.length == 1]
        self.longer = [
            (slice(row, row + c.length), c, CuSeqlens((0, c.length)), CuSeqlens((0, c.end)))
            for row, c in rows
            if c.length > 1
        ]
        self.single: SlotsInPlace | GatheredSlots | None = None
        if single and (device.type == "cpu" or by_row):
            self.single = SlotsInPlace(single, window, keys.dtype, alone=by_row)
        elif single:
            self.single = GatheredSlots(single, window, device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.keys[layer], self.values[layer]
        # Few rows come transposed from the linears, and PyTorch would take another, slower kernel for them.
        q = q.contiguous()
        rows = len(self.row_slots)
        keys[self.row_slots, :, self.row_positions] = k[:rows]
        values[self.row_slots, :, self.row_positions] = v[:rows]
        if self.in_one_launch:
            return attend_slots(q, keys, values, self.seen, self.window)
        out = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
        if self.single:
            self.single(q, keys, values, out)
        for span, c, cu_seqlens_q, cu_seqlens_k in self.longer:
            out[span] = packed_attention(
                q[span],
                keys[c.slot, :, : c.end].transpose(0, 1),
                values[c.slot, :, : c.end].transpose(0, 1),
                cu_seqlens_q=cu_seqlens_q,
                cu_seqlens_k=cu_seqlens_k,
                window=self.window,
                backend=self.backend,
            )
        return out


class GatheredSlots:
    """Attention of single tokens over copies of their slots' keys and values, in one call: for GPUs that cannot read
    them in place, where a launch for each slot would cost more than the copy. ``rows`` are each token's row and
    chunk."""

    def __init__(self, rows: Sequence[tuple[int, Chunk]], window: int | None, device: torch.device) -> None:
        self.longest = max(chunk.end for _, chunk in rows)
        self.rows = torch.tensor([row for row, _ in rows], device=device)
        self.slots = torch.tensor([chunk.slot for _, chunk in rows], device=device)
        ends = torch.tensor([[chunk.end] for _, chunk in rows], device=device)
        positions = torch.arange(self.longest, device=device)[None]
        allowed = positions < ends
        if window is not None:
            allowed &= positions >= ends - window
        self.mask = allowed[:, None, None]

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        """Write the attention of ``q [T, heads, head_dim]`` to its rows of ``out``; ``keys`` and ``values`` are
        ``[slots, kv_heads, context, head_dim]``."""
        past_keys, past_values = (t[:, :, : self.longest].index_select(0, self.slots) for t in (keys, values))
        grouped = q.shape[1] != keys.shape[1]
        attended = F.scaled_dot_product_attention(
            q[self.rows, :, None], past_keys, past_values, attn_mask=self.mask, enable_gqa=grouped
        )
        out[self.rows] = attended[:, :, 0]


class SlotsInPlace:
    """Attention of single tokens over the slots of a cache, without a copy of what is cached: for CPUs.

    ``rows`` are each token's row and chunk. Neighbouring slots with about as many tokens are computed in one call: it
    is faster than one call each, but takes every slot for as long as the longest. With ``alone`` there is a call for
    each, so that a token's result does not depend on the others.
    """

    def __init__(
        self, rows: Sequence[tuple[int, Chunk]], window: int | None, dtype: torch.dtype, *, alone: bool
    ) -> None:
        row_of = {chunk.slot: (row, chunk) for row, chunk in rows}
        if alone or window is not None or len(row_of) < len(rows):  # several tokens of one slot come one by one
            runs = [[(row, chunk)] for row, chunk in rows]
        else:
            runs = _neighbours(row_of)
        self.calls = [_Call.of(run, window, dtype) for run in runs]

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        """Write the attention of ``q [T, heads, head_dim]`` to its rows of ``out``; ``keys`` and ``values`` are
        ``[slots, kv_heads, context, head_dim]``."""
        # Heads that share keys are the queries of one head.
        grouped, grouped_out = (t.unflatten(1, (keys.shape[1], -1)) for t in (q, out))
        for call in self.calls:
            grouped_out[call.rows] = F.scaled_dot_product_attention(
                grouped[call.rows],
                keys[call.slots, :, call.tokens],
                values[call.slots, :, call.tokens],
                attn_mask=call.mask,
            )


CALL = 250
"""What a call costs, in tokens whose keys and values could be read in that time."""


def _neighbours(row_of: dict[int, tuple[int, Chunk]]) -> list[list[tuple[int, Chunk]]]:
    """Return slots that are computed together: runs of neighbours, such that calls and tokens cost least in all."""
    slots = sorted(row_of)
    ends = [row_of[slot][1].end for slot in slots]
    # The least cost of the first n slots, and where the last run of them begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for last in range(len(slots)):
        longest, options = 0, []
        for first in range(last, -1, -1):
            if slots[last] - slots[first] != last - first:
                break
            longest = max(longest, ends[first])
            options.append((best[first][0] + CALL + (last - first + 1) * longest, first))
        best.append(min(options))
    runs: list[list[tuple[int, Chunk]]] = []
    end = len(slots)
    while end:
        first = best[end][1]
        runs.append([row_of[slot] for slot in slots[first:end]])
        end = first
    return runs


@dataclass(frozen=True, slots=True)
class _Call:
    """One call: ``rows`` of the queries, the slots and tokens that they see, and what is masked (None: nothing)."""

    rows: slice | Tensor
    slots: slice
    tokens: slice
    mask: Tensor | None

    @classmethod
    def of(cls, run: Sequence[tuple[int, Chunk]], window: int | None, dtype: torch.dtype) -> _Call:
        chunks, rows = [chunk for _, chunk in run], [row for row, _ in run]
        longest = max(chunk.end for chunk in chunks)
        first = 0 if window is None else max(0, longest - window)  # with a window there is one chunk
        mask = None
        if any(chunk.end < longest for chunk in chunks):
            ends = torch.tensor([chunk.end for chunk in chunks])[:, None, None, None]
            mask = torch.zeros(len(run), 1, 1, longest, dtype=dtype)
            mask.masked_fill_(torch.arange(longest) >= ends, float("-inf"))
        ascending = rows == list(range(rows[0], rows[0] + len(rows)))
        return cls(
            slice(rows[0], rows[0] + len(rows)) if ascending else torch.tensor(rows),
            slice(chunks[0].slot, chunks[0].slot + len(chunks)),
            slice(first, longest),
            mask,
        )
