"""Attention on the meta device: allocates and keeps what the real kernels do, and computes nothing.

PyTorch's own attention would choose another path for meta tensors than for those of the device that trains. The
operators have "attention" in their names, by which selective recomputation knows what to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cbtrain.model.attention.masks import bottom_right_mask
from cbtrain.model.decoder import Attend


@torch.library.custom_op("cbtrain_planning::attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, expand: bool) -> tuple[Tensor, Tensor]:
    """Return result and log-sum-exp of fused attention of ``q [T, heads, head_dim]``. ``expand`` says that the
    backward pass has gradients of keys and values for every head of queries before it sums them up, and those of
    queries in fp32, as FlashAttention's does."""
    raise NotImplementedError("for the meta device only")


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, expand: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)


@torch.library.custom_op("cbtrain_planning::attention_backward", mutates_args=())
def _attention_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    raise NotImplementedError("for the meta device only")


@_attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.expand = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    q, k, v, _out, _sums = ctx.saved_tensors
    scratch: list[Tensor] = []
    if ctx.expand:
        scratch.append(torch.empty_like(q, dtype=torch.float32))
        if k.shape[1] != q.shape[1]:
            scratch += [torch.empty_like(q), torch.empty_like(q)]
    grads = _attention_backward(grad.contiguous(), q, k, v)
    del scratch
    return (*grads, None)


_attention.register_autograd(_backward, setup_context=_keep)


def stand_in(backend: str, device: str, cu_seqlens: Sequence[int], window: int | None) -> Attend:
    """Return ``attend`` for documents at ``cu_seqlens`` that takes the memory of ``backend`` on ``device``."""

    def packed(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = _attention(q, k, v, True)[0]
        return out

    longest = max(b - a for a, b in pairwise(cu_seqlens))

    def by_document(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if device == "cpu" and (window is None or longest <= window) and torch.is_grad_enabled():
            out: Tensor = _CpuDocuments.apply(q, k, v, cu_seqlens)
            return out
        outputs = [_document(q[a:b], k[a:b], v[a:b], window, device) for a, b in pairwise(cu_seqlens)]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    return by_document if backend == "sdpa" else packed


class _CpuDocuments(torch.autograd.Function):
    """Allocates what :func:`cbtrain.model.attention.pieces.attend_pieces` does."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Sequence[int]) -> Tensor:
        out, sums = torch.empty(q.shape, dtype=q.dtype, device=q.device), []
        for begin, end in pairwise(cu_seqlens):
            result, log_sum = _attention(q[begin:end], k[begin:end], v[begin:end], False)
            out[begin:end] = result
            sums.append(log_sum)
        ctx.cu_seqlens = cu_seqlens
        ctx.save_for_backward(q, k, v, out, *sums)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, _out, *_sums = ctx.saved_tensors
        grads = tuple(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
        for begin, end in pairwise(ctx.cu_seqlens):
            for whole, part in zip(grads, _attention_backward(*(t[begin:end] for t in (grad, q, k, v))), strict=True):
                whole[begin:end] = part
        of_q, of_k, of_v = grads
        return of_q, of_k, of_v, None


def _document(q: Tensor, k: Tensor, v: Tensor, window: int | None, device: str) -> Tensor:
    """Return the output of ``sdpa._document`` for queries and keys of the same tokens."""
    windowed = window is not None and q.shape[0] > window
    mask = bottom_right_mask(q.shape[0], q.shape[0], window, q.device) if windowed else None
    # No fused kernel of CUDA takes fp32 with fewer heads of keys, or a mask with them.
    if device == "cuda" and q.shape[1] != k.shape[1] and (windowed or q.dtype == torch.float32):
        return _plainly(q, k, v, mask)
    # A mask becomes numbers that are added to the scores, and is kept as such.
    added = torch.where(mask, q.new_zeros(()), q.new_zeros(())) if mask is not None else None
    out: Tensor = _attention(q, k, v, False)[0]
    return out if added is None else _Keeping.apply(out, added)


def _plainly(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return the output of PyTorch's path without a fused kernel, which keeps every score."""
    with sdpa_kernel(SDPBackend.MATH):
        out = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=q.shape[1] != k.shape[1],
        )
    return out[0].transpose(0, 1)


class _Keeping(torch.autograd.Function):
    """``x``, with ``kept`` alive until the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(kept)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
