"""Attention in training on CPUs: one call for each run of queries, over keys that may lie in several pieces.

The results are written to one tensor, and with query, key and value that is all that is kept: concatenated by autograd
they would be kept twice, and gathered keys once more. Keys in pieces are gathered again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cbtrain.model.attention.masks import bottom_right_mask

Pieces = tuple[tuple[int, int], ...]

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def trains_on_cpu(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Return whether this is a pass that gradients follow, on a CPU, with memory that the kernel can read."""
    trained = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    return trained and q.device.type == "cpu" and all(t.stride(-1) == 1 for t in (q, k, v))


def attend_pieces(
    q: Tensor, k: Tensor, v: Tensor, spans: Sequence[tuple[int, int, Pieces]], window: int | None
) -> Tensor:
    """Return the attention of each span of queries ``[begin, end)``, in order and without gaps, over the keys in its
    pieces, causal from the bottom right and inside ``window``. Shapes as in
    :func:`cbtrain.model.attention.packed.packed_attention`."""
    out: Tensor = _Spans.apply(q, k, v, tuple(spans), window)
    return out


class _Spans(torch.autograd.Function):
    """By the kernel that SDPA takes on CPUs."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, spans: tuple[tuple[int, int, Pieces], ...], window: int | None
    ) -> Tensor:
        out, sums = torch.empty(q.shape, dtype=q.dtype), []
        for begin, end, pieces in spans:
            keys, values = _rows(k, pieces), _rows(v, pieces)
            mask = _mask(end - begin, len(keys), window, q)
            inputs = (_heads_first(t) for t in (q[begin:end], keys, values))
            result, log_sum = flash(*inputs, is_causal=mask is None, attn_mask=mask)
            out[begin:end] = result[0].transpose(0, 1)
            sums.append(log_sum)
        ctx.spans, ctx.window = spans, window
        ctx.save_for_backward(q, k, v, out, *sums)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, *sums = ctx.saved_tensors
        grad_q, grad_k, grad_v = (torch.empty(t.shape, dtype=t.dtype) for t in (q, k, v))
        written: set[tuple[int, int]] = set()
        for (begin, end, pieces), log_sum in zip(ctx.spans, sums, strict=True):
            keys, values = _rows(k, pieces), _rows(v, pieces)
            mask = _mask(end - begin, len(keys), ctx.window, q)
            inputs = (_heads_first(t) for t in (grad[begin:end], q[begin:end], keys, values, out[begin:end]))
            parts = flash_backward(*inputs, log_sum, 0.0, mask is None, attn_mask=mask)
            of_q, of_k, of_v = (part[0].transpose(0, 1) for part in parts)
            grad_q[begin:end] = of_q
            _add_rows(grad_k, of_k, pieces, written)
            _add_rows(grad_v, of_v, pieces, written)
            written.update(pieces)
        return grad_q, grad_k, grad_v, None, None


def _rows(x: Tensor, pieces: Pieces) -> Tensor:
    if len(pieces) == 1:
        return x[slice(*pieces[0])]
    return torch.cat([x[begin:end] for begin, end in pieces])


def _add_rows(whole: Tensor, part: Tensor, pieces: Pieces, written: set[tuple[int, int]]) -> None:
    """Add ``part`` to the rows of ``whole`` in ``pieces``; rows that no earlier span has ``written`` are set."""
    done = 0
    for begin, end in pieces:
        rows = part[done : done + end - begin]
        before = any(first <= begin < last for first, last in written)
        whole[begin:end] = whole[begin:end] + rows if before else rows
        done += end - begin


def _mask(queries: int, keys: int, window: int | None, q: Tensor) -> Tensor | None:
    """Return what is added to scores ``[1, 1, queries, keys]``, None if they are causal in a square without window."""
    if queries == keys and (window is None or keys <= window):
        return None
    allowed = bottom_right_mask(queries, keys, window, q.device)
    return torch.zeros(allowed.shape, dtype=q.dtype).masked_fill_(~allowed, -torch.inf)[None, None]


def _heads_first(x: Tensor) -> Tensor:
    """Return ``x [T, heads, head_dim]`` as ``[1, heads, T, head_dim]``."""
    return x.transpose(0, 1)[None]
