"""The reference back-end: PyTorch's scaled dot-product attention, one document after another.

It runs on every device and in every dtype, CPUs use it, and the other back-ends are compared with it.

In training on CPUs the documents' results are written to one tensor, and that is all that is kept of them:
concatenated by autograd they would be kept twice.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtrain.model.attention.cu_seqlens import CuSeqlens


def obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Return no obstacle: it runs everywhere."""
    return None


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: CuSeqlens, cu_seqlens_k: CuSeqlens, window: int | None
) -> Tensor:
    """Return :func:`cbtrain.model.attention.packed.packed_attention`."""
    whole = cu_seqlens_q.host == cu_seqlens_k.host and (window is None or cu_seqlens_k.max_seqlen <= window)
    if whole and _trains_on_cpu(q, k, v):
        out: Tensor = _Documents.apply(q, k, v, cu_seqlens_q.host)
        return out
    outputs = [
        _document(q[q0:q1], k[k0:k1], v[k0:k1], window)
        for (q0, q1), (k0, k1) in zip(pairwise(cu_seqlens_q.host), pairwise(cu_seqlens_k.host), strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _trains_on_cpu(q: Tensor, k: Tensor, v: Tensor) -> bool:
    trained = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    return trained and q.device.type == "cpu" and all(t.stride(-1) == 1 for t in (q, k, v))


class _Documents(torch.autograd.Function):
    """Causal attention inside each document, by the kernel that SDPA takes on CPUs."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: tuple[int, ...]) -> Tensor:
        out, sums = torch.empty(q.shape, dtype=q.dtype), []
        for begin, end in pairwise(cu_seqlens):
            result, log_sum = flash(*(_heads_first(t[begin:end]) for t in (q, k, v)), is_causal=True)
            out[begin:end] = result[0].transpose(0, 1)
            sums.append(log_sum)
        ctx.cu_seqlens = cu_seqlens
        ctx.save_for_backward(q, k, v, out, *sums)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, *sums = ctx.saved_tensors
        grads = tuple(torch.empty(t.shape, dtype=t.dtype) for t in (q, k, v))
        for (begin, end), log_sum in zip(pairwise(ctx.cu_seqlens), sums, strict=True):
            inputs = (_heads_first(t[begin:end]) for t in (grad, q, k, v, out))
            parts = flash_backward(*inputs, log_sum, 0.0, True)
            for whole, part in zip(grads, parts, strict=True):
                whole[begin:end] = part[0].transpose(0, 1)
        of_q, of_k, of_v = grads
        return of_q, of_k, of_v, None


def _heads_first(x: Tensor) -> Tensor:
    """Return ``x [T, heads, head_dim]`` as ``[1, heads, T, head_dim]``."""
    return x.transpose(0, 1)[None]


def _document(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    queries, keys = q.shape[0], k.shape[0]
    # A full square without a window is what SDPA's fused causal kernel serves; one query needs no mask at all.
    windowed = window is not None and keys > window
    square = queries == keys and not windowed
    mask = None
    if not square and (queries > 1 or windowed):
        mask = bottom_right_mask(queries, keys, window, q.device)
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None],
        k.transpose(0, 1)[None],
        v.transpose(0, 1)[None],
        attn_mask=mask,
        is_causal=square,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out[0].transpose(0, 1)


def bottom_right_mask(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return bool ``[queries, keys]``: True where a query attends to a key (causal, aligned at the last of both)."""
    ahead = torch.arange(keys, device=device)[None] - (torch.arange(queries, device=device)[:, None] + keys - queries)
    allowed = ahead <= 0
    return allowed if window is None else allowed & (ahead > -window)
