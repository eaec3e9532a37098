"""Attention of one new token per conversation over the key-value cache, for generation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cached_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, window: int | None) -> Tensor:
    """Return the attention of one new token per sequence over its cached keys and values, in one batched call.

    ``q [B, heads, head_dim]``; ``k``, ``v [B, kv_heads, longest, head_dim]`` padded at the end; ``lengths [B]`` int64
    counts the valid keys, the new token's own included. Return ``[B, heads, head_dim]``.
    """
    positions = torch.arange(k.shape[2], device=q.device)[None]
    allowed = positions < lengths[:, None]
    if window is not None:
        allowed &= positions >= lengths[:, None] - window
    out = F.scaled_dot_product_attention(
        q[:, :, None], k, v, attn_mask=allowed[:, None, None], enable_gqa=q.shape[1] != k.shape[1]
    )
    return out[:, :, 0]


def attention_in_place(
    q: Tensor, keys: Tensor, values: Tensor, slots: Sequence[int], lengths: Sequence[int], window: int | None
) -> Tensor:
    """Return :func:`cached_attention`, one sequence after another, without a copy of what is cached: for CPUs.

    ``keys``, ``values [slots, kv_heads, context, head_dim]``; sequence i has ``lengths[i]`` of them in ``slots[i]``.
    A row depends on nothing but its own sequence.
    """
    kv_heads, head_dim = keys.shape[1], keys.shape[3]
    # Heads that share keys are the rows of one product.
    grouped = q.unflatten(1, (kv_heads, -1))
    out = torch.empty_like(grouped)
    for row, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
        first = 0 if window is None else max(0, length - window)
        seen_keys, seen_values = keys[slot, :, first:length], values[slot, :, first:length]
        if q.dtype == torch.float32:
            scores = torch.bmm(grouped[row] * head_dim**-0.5, seen_keys.transpose(1, 2))
            torch.bmm(scores.softmax(-1), seen_values, out=out[row])
        else:  # products in bf16 would round the scores
            out[row] = F.scaled_dot_product_attention(grouped[row][None], seen_keys[None], seen_values[None])[0]
    return out.flatten(1, 2)
