"""The back-end of ``torch.nn.attention.varlen``: FlashAttention as it comes with torch, all documents in one launch.

Its signature changes between releases: 2.11 knows no ``enable_gqa`` and takes grouped heads as they are, later releases
refuse them without it. So the function is asked for its parameters.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cbtrain.model.attention.cu_seqlens import CuSeqlens
from cbtrain.model.attention.flash import unsuited

PAGE = 256
"""Pages of FlashAttention are a multiple of so many tokens."""


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


def slots_obstacle(device: torch.device, dtype: torch.dtype, head_dim: int, context: int) -> str | None:
    """Return why :func:`attend_slots` cannot run here, or None."""
    reason = obstacle(device, dtype, head_dim)
    if reason is not None:
        return reason
    if "block_table" not in _parameters(_function()):
        return f"varlen_attn of torch {torch.__version__} takes no block_table"
    return f"slots of {context} tokens are no multiple of {PAGE}" if context % PAGE else None


@dataclass(frozen=True, slots=True)
class Slots:
    """Which tokens of a cache's slots the chunks of a row see: chunk i the first ``ends[i]`` of slot ``table[i, 0]``
    (both int32); ``longest`` is the largest of ``ends``."""

    cu_seqlens_q: CuSeqlens
    ends: Tensor
    table: Tensor
    longest: int


def attend_slots(q: Tensor, keys: Tensor, values: Tensor, slots: Slots, window: int | None) -> Tensor:
    """Return the attention of new tokens ``q [T, heads, head_dim]``, chunk after chunk, over the slots of a cache,
    which are read in place: FlashAttention takes each for one page.

    ``keys``, ``values [slots, kv_heads, context, head_dim]``. The mask is causal from the bottom right. Not yet
    measured on a GPU.
    """
    function = _function()
    assert function is not None
    out: Tensor = function(
        q,
        keys.transpose(1, 2),
        values.transpose(1, 2),
        slots.cu_seqlens_q.on(q.device),
        None,
        slots.cu_seqlens_q.max_seqlen,
        slots.longest,
        window_size=(-1, 0) if window is None else (window - 1, 0),
        enable_gqa=q.shape[1] != keys.shape[1],
        seqused_k=slots.ends,
        block_table=slots.table,
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
