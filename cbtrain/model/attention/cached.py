"""Attention of one new token per conversation over the key-value cache, for generation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cached_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, window: int | None) -> Tensor:
    """Return the attention of one new token per sequence over its cached keys and values, in one batched call.

    ``q [B, heads, head_dim]``; ``k``, ``v [B, longest, kv_heads, head_dim]`` padded at the end; ``lengths [B]`` int64
    counts the valid keys, the new token's own included. Return ``[B, heads, head_dim]``.
    """
    positions = torch.arange(k.shape[1], device=q.device)[None]
    allowed = positions < lengths[:, None]
    if window is not None:
        allowed &= positions >= lengths[:, None] - window
    out = F.scaled_dot_product_attention(
        q[:, :, None],
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=allowed[:, None, None],
        enable_gqa=q.shape[1] != k.shape[2],
    )
    return out[:, :, 0]
