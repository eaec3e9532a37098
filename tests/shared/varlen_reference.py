"""What the packed-attention kernels of torch and flash-attn promise, computed plainly in fp64 from their arguments.

The kernels need a GPU; this stands in for them where there is none, so that what we hand them is tested everywhere.
Each function has exactly the parameters that the release has: a wrong name or place fails as it would there.
"""

import torch


def plainly(q, k, v, cu_seqlens_q, cu_seqlens_k, max_q, max_k, window_size, causal=False, scale=None):
    """Softmax attention inside each document; ``window_size`` (left, right), -1 for no limit, from the bottom right."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    lengths_q, lengths_k = cu_seqlens_q.diff(), cu_seqlens_k.diff()
    assert (max_q, max_k) == (int(lengths_q.max()), int(lengths_k.max()))
    left, right = window_size[0], 0 if causal else window_size[1]
    out = torch.empty_like(q, dtype=torch.float64)
    for i in range(len(lengths_q)):
        qs, ks = slice(cu_seqlens_q[i], cu_seqlens_q[i + 1]), slice(cu_seqlens_k[i], cu_seqlens_k[i + 1])
        groups = q.shape[1] // k.shape[1]
        key, value = (t[ks].double().repeat_interleave(groups, 1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[qs].double(), key) * (scale or q.shape[-1] ** -0.5)
        distance = torch.arange(key.shape[0])[None] - (
            torch.arange(scores.shape[1])[:, None] + key.shape[0] - scores.shape[1]
        )
        hidden = torch.zeros_like(distance, dtype=torch.bool)
        if right >= 0:
            hidden |= distance > right
        if left >= 0:
            hidden |= distance < -left
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out[qs] = torch.einsum("hqk,khd->qhd", weights, value)
    return out.to(q.dtype)


def torch_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    return plainly(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size, scale=scale)


def torch_2_12(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
    seqused_k=None,
    block_table=None,
    num_splits=None,
):
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError("heads differ: set enable_gqa")
    return plainly(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size, scale=scale)


def flash_attn_2_8(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
    block_table=None,
):
    return plainly(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, window_size, causal, softmax_scale)
