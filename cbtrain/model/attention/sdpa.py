"""The reference back-end: PyTorch's scaled dot-product attention, one document after another.

It runs on every device and in every dtype, CPUs use it, and the other back-ends are compared with it.

In training on CPUs :mod:`.pieces` does it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtrain.model.attention.cu_seqlens import CuSeqlens
from cbtrain.model.attention.masks import bottom_right_mask
from cbtrain.model.attention.pieces import attend_pieces, trains_on_cpu


def obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Return no obstacle: it runs everywhere."""
    return None


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: CuSeqlens, cu_seqlens_k: CuSeqlens, window: int | None
) -> Tensor:
    """Return :func:`cbtrain.model.attention.packed.packed_attention`."""
    whole = cu_seqlens_q.host == cu_seqlens_k.host and (window is None or cu_seqlens_k.max_seqlen <= window)
    if whole and trains_on_cpu(q, k, v):
        return attend_pieces(q, k, v, [(*span, (span,)) for span in pairwise(cu_seqlens_q.host)], window=None)
    outputs = [
        _document(q[q0:q1], k[k0:k1], v[k0:k1], window)
        for (q0, q1), (k0, k1) in zip(pairwise(cu_seqlens_q.host), pairwise(cu_seqlens_k.host), strict=True)
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
