"""Fused residual add and RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467), forward and backward.

The norm's weight is frozen in LoRA training, so no weight gradient is computed. Values are converted to fp32 directly
after each load (Triton's interpreter treats bf16 bits as integers) and rounded at the same points as in the Hugging
Face models. The decoder does not use it yet, and it is not yet measured on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # Linux only; the reference below runs everywhere
    triton = None


def rms_norm_reference(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return ``residual + x`` and its RMSNorm, both ``[T, hidden]`` in x's dtype; plain PyTorch, differentiable."""
    total = residual + x
    wide = total.to(torch.promote_types(total.dtype, torch.float32))
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return total, weight * wide.to(x.dtype)


def rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the same as :func:`rms_norm_reference`, with one Triton kernel for each of forward and backward.

    ``x`` and ``residual`` are ``[T, hidden]``, contiguous. Raises RuntimeError if Triton is not installed.
    """
    if triton is None:
        raise RuntimeError("Triton is not installed: use rms_norm_reference")
    return _RMSNorm.apply(x, residual, weight, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        rows, hidden = x.shape
        total, out = torch.empty_like(x), torch.empty_like(x)
        inverse = torch.empty(rows, dtype=torch.float32, device=x.device)
        block = triton.next_power_of_2(hidden)
        _forward[(rows,)](x, residual, weight, total, out, inverse, hidden, eps, BLOCK=block)
        ctx.save_for_backward(total, weight, inverse)
        return total, out

    @staticmethod
    def backward(ctx: Any, d_total: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor, None, None]:
        total, weight, inverse = ctx.saved_tensors
        rows, hidden = total.shape
        dx = torch.empty_like(total)
        block = triton.next_power_of_2(hidden)
        _backward[(rows,)](d_total.contiguous(), d_out.contiguous(), total, weight, inverse, dx, hidden, BLOCK=block)
        return dx, dx, None, None


if triton is not None:
    # A kernel takes each tensor as a pointer, and its sizes as scalars: a Triton signature cannot group them.

    # More than seven parameters: three inputs, three outputs, a size, a constant and the block size.
    @triton.jit
    def _forward(X, R, W, TOTAL, OUT, INVERSE, hidden, eps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)
        columns = tl.arange(0, BLOCK)
        mask = columns < hidden
        at = row * hidden + columns
        total = tl.load(X + at, mask, 0.0).to(tl.float32) + tl.load(R + at, mask, 0.0).to(tl.float32)
        dtype = OUT.dtype.element_ty
        tl.store(TOTAL + at, total.to(dtype), mask)
        total = total.to(dtype).to(tl.float32)
        inverse = 1.0 / tl.sqrt(tl.sum(total * total, 0) / hidden + eps)
        tl.store(INVERSE + row, inverse)
        normed = (total * inverse).to(dtype).to(tl.float32)
        tl.store(OUT + at, (normed * tl.load(W + columns, mask, 0.0).to(tl.float32)).to(dtype), mask)

    # More than seven parameters: five inputs, one output, a size and the block size.
    @triton.jit
    def _backward(D_TOTAL, D_OUT, TOTAL, W, INVERSE, DX, hidden, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)
        columns = tl.arange(0, BLOCK)
        mask = columns < hidden
        at = row * hidden + columns
        inverse = tl.load(INVERSE + row)
        normed = tl.load(TOTAL + at, mask, 0.0).to(tl.float32) * inverse
        wide = tl.load(D_OUT + at, mask, 0.0).to(tl.float32) * tl.load(W + columns, mask, 0.0).to(tl.float32)
        # d/dx of x·rsqrt(mean(x²)): the gradient without its component along x.
        dx = inverse * (wide - normed * (tl.sum(wide * normed, 0) / hidden))
        dx += tl.load(D_TOTAL + at, mask, 0.0).to(tl.float32)
        tl.store(DX + at, dx.to(DX.dtype.element_ty), mask)
