"""Attention over packed documents: the per-document SDPA reference that CPUs run and that other back-ends equal.

Tokens of several documents lie end to end in one row; ``cu`` (cumulative lengths, ``[documents + 1]``) says where each
begins. Attention never crosses a document. With fewer queries than keys, the mask is causal from the bottom right:
the last query sees the last key. So the same call serves training (as many queries as keys), generation with a KV
cache (one or a few queries against a long past) and shared prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, *, cu_q: Sequence[int], cu_k: Sequence[int], window: int | None
) -> Tensor:
    """Causal attention inside each document.

    ``q [Tq, heads, head_dim]``, ``k`` and ``v [Tk, kv_heads, head_dim]`` (``heads`` a multiple of ``kv_heads``), any
    float dtype; ``cu_q``, ``cu_k`` host integers, so that nothing waits for the device. ``window`` limits each query to
    the last ``window`` keys, itself included. Returns ``[Tq, heads, head_dim]``.
    """
    outputs = [
        _document(q[q0:q1], k[k0:k1], v[k0:k1], window)
        for q0, q1, k0, k1 in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


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
    """Boolean ``[queries, keys]``: True where the query may look (causal, aligned at the last query and key)."""
    ahead = torch.arange(keys, device=device)[None] - (torch.arange(queries, device=device)[:, None] + keys - queries)
    allowed = ahead <= 0
    return allowed if window is None else allowed & (ahead > -window)


def cached_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, window: int | None) -> Tensor:
    """One new token per sequence against its own past, in one batched call.

    ``q [B, heads, head_dim]``; ``k``, ``v [B, longest, kv_heads, head_dim]`` padded at the end; ``lengths [B]`` int64
    counts the valid keys, the new token's own included. Returns ``[B, heads, head_dim]``.
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
