"""The back-end of the ``flash-attn`` package (Dao 2023, arXiv 2307.08691): all documents in one launch."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from cbtrain.model.attention.cu_seqlens import CuSeqlens


def obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Return why this back-end cannot run here, or None."""
    if _function() is None:
        return "the package flash-attn is not installed"
    return unsuited(device, dtype, head_dim)


def unsuited(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Return why FlashAttention's kernels cannot run, or None: they need CUDA (Ampere or later), bf16 or fp16, and a
    head_dim of at most 256, divisible by 8."""
    if device.type != "cuda":
        return f"it needs a CUDA device, this is {device.type!r}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs a GPU of the Ampere generation or later"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it computes in bf16, not in {str(dtype).removeprefix('torch.')}"
    if head_dim % 8 or head_dim > 256:
        return f"it needs heads of at most 256 in steps of 8, these have {head_dim}"
    return None


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: CuSeqlens, cu_seqlens_k: CuSeqlens, window: int | None
) -> Tensor:
    """Return :func:`cbtrain.model.attention.packed.packed_attention`. Keys may have fewer heads than queries."""
    function = _function()
    assert function is not None
    out: Tensor = function(
        q,
        k,
        v,
        cu_seqlens_q.on(q.device),
        cu_seqlens_k.on(q.device),
        cu_seqlens_q.max_seqlen,
        cu_seqlens_k.max_seqlen,
        causal=True,
        # Counted without the query itself; -1 is no limit.
        window_size=(-1, 0) if window is None else (window - 1, 0),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return out


@cache
def _function() -> Any:
    try:
        from flash_attn import flash_attn_varlen_func
    except Exception:  # a wheel of another torch fails with an undefined symbol, not with ImportError alone
        return None
    return flash_attn_varlen_func
