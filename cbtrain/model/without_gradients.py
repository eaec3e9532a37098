"""The decoder's layers with Triton kernels where no gradient is wanted: generation, serving, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from cbtrain.model.fused.elementwise import Elementwise


def hidden_states(
    layers: Iterable[Any],
    last_norm: Any,
    x: Tensor,
    angles: tuple[Tensor, Tensor],
    attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
    between: Elementwise,
    rows: Tensor | None = None,
) -> Tensor:
    """Return what ``layers`` make of ``x [T, hidden]``, which is overwritten, after ``last_norm``, of ``rows`` only if
    they are given. ``angles`` are cosines and sines ``[T, head_dim / 2]`` in the dtype of ``x``.

    The layers' linears are called as modules, with whatever adapters stand in their places. Each norm adds what the
    part before it has made.
    """
    cos, sin = angles
    made: Tensor | None = None
    for layer in layers:
        a, mlp, norm = layer.self_attn, layer.mlp, layer.input_layernorm
        h, _ = between.norm(x, norm.weight, norm.eps, add=made)
        q, k, v = (_rows(linear(h)).unflatten(-1, (-1, a.head_dim)) for linear in (a.q_proj, a.k_proj, a.v_proj))
        if a.qk_norm:
            for n, heads in ((a.q_norm, q), (a.k_norm, k)):
                between.norm(heads, n.weight, n.eps, out=heads)
        between.rotate((q, k), cos, sin)
        made, norm = _rows(a.o_proj(attend(a.layer, q, k, v).flatten(-2))), layer.post_attention_layernorm
        h, _ = between.norm(x, norm.weight, norm.eps, add=made)
        made = _rows(mlp.down_proj(between.swiglu(_rows(mlp.gate_proj(h)), _rows(mlp.up_proj(h)))))
    if rows is not None:
        x, made = x[rows], made if made is None else made[rows]
    normed: Tensor = between.norm(x, last_norm.weight, last_norm.eps, add=made)[0]
    return normed


def _rows(product: Tensor) -> Tensor:
    """Return ``product`` with its rows in one piece: on GPUs as it is; CPUs give products of few rows by columns."""
    return product.contiguous()
