"""The back-end of ``torch.nn.attention.varlen``: FlashAttention as it comes with torch, all documents in one launch.

Its signature changes between releases: 2.11 knows no ``enable_gqa`` and takes grouped heads as they are, later releases
refuse them without it. So the function is asked for its parameters.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cbtrain.model.attention.cu_seqlens import CuSeqlens
from cbtrain.model.attention.flash import unsuited


def obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Return why this back-end cannot run here, or None."""
    function = _function()
    if function is None:
        return f"torch {torch.__version__} has no torch.nn.attention.varlen"
    if "window_size" not in _parameters(function):
        return f"varlen_attn of torch {torch.__version__} takes no window_size"
    return unsuited(device, dtype, head_dim)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: CuSeqlens, cu_seqlens_k: CuSeqlens, window: int | None
) -> Tensor:
    """Return :func:`cbtrain.model.attention.packed.packed_attention`."""
    function = _function()
    assert function is not None
    # The default is not causal: a right side of 0 makes it so, counted from the bottom right.
    options: dict[str, Any] = {"window_size": (-1, 0) if window is None else (window - 1, 0)}
    if "enable_gqa" in _parameters(function):
        options["enable_gqa"] = q.shape[1] != k.shape[1]
    out: Tensor = function(
        q,
        k,
        v,
        cu_seqlens_q.on(q.device),
        cu_seqlens_k.on(q.device),
        cu_seqlens_q.max_seqlen,
        cu_seqlens_k.max_seqlen,
        **options,
    )
    return out


@cache
def _function() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


@cache
def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
