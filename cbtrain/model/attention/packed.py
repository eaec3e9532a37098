"""Attention over packed documents: one function for all back-ends.

Tokens of several documents lie end to end in one row; ``cu_seqlens`` (cumulative lengths) says where each begins.
Attention never crosses a document. With fewer queries than keys, the mask is causal from the bottom right: the last
query sees the last key. So the same call serves training (as many queries as keys), generation with a key-value cache
(a few queries, many cached keys) and shared prefixes.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from cbtrain.errors import UserError, nearest
from cbtrain.model.attention import flash, sdpa, torch_varlen
from cbtrain.model.attention.cu_seqlens import CuSeqlens

BACKENDS: dict[str, ModuleType] = {"flash-attn": flash, "torch-varlen": torch_varlen, "sdpa": sdpa}
"""In the order in which ``auto`` tries them. Not yet chosen by measurement on a GPU."""


def packed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: CuSeqlens,
    cu_seqlens_k: CuSeqlens,
    window: int | None,
    backend: str = "auto",
) -> Tensor:
    """Compute causal attention inside each document.

    ``q [Tq, heads, head_dim]``, ``k`` and ``v [Tk, kv_heads, head_dim]`` (``heads`` a multiple of ``kv_heads``), any
    float dtype. ``window`` limits each query to the last ``window`` keys, itself included. Return
    ``[Tq, heads, head_dim]``. Raises UserError if ``backend`` is named and cannot run here.
    """
    name = choose_backend(backend, q.device, q.dtype, q.shape[-1])
    out: Tensor = BACKENDS[name].attend(q, k, v, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, window=window)
    return out


@cache
def choose_backend(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Return the back-end to use: the first that can run here for ``auto``, else ``name``.

    Raises UserError on an unknown name, and on one that cannot run here, with the reason.
    """
    if name == "auto":
        return next(backend for backend, module in BACKENDS.items() if module.obstacle(device, dtype, head_dim) is None)
    if name not in BACKENDS:
        names = ("auto", *BACKENDS)
        raise UserError(f"unknown attention back-end {name!r}", where="model.attention", hint=nearest(name, names))
    reason = BACKENDS[name].obstacle(device, dtype, head_dim)
    if reason is not None:
        raise UserError(
            f"attention back-end {name!r} cannot be used: {reason}", where="model.attention", hint="Use auto."
        )
    return name


def obstacles(device: torch.device, dtype: torch.dtype, head_dim: int) -> dict[str, str | None]:
    """Return for each back-end why it cannot run here, or None."""
    return {name: module.obstacle(device, dtype, head_dim) for name, module in BACKENDS.items()}
