"""Norm, rotation and activation of some rows, and their gradients: what a layer computes between its matrix products.

Results are written over what is not needed any more. Norms compute in fp32 at least (fp64 inputs in fp64), with the
cast order of :class:`cbtrain.model.decoder.RMSNorm`. The norms' weights are frozen: there is no gradient for them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

silu_backward = torch.ops.aten.silu_backward.grad_input


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """Return 1 / √(mean(x²) + eps) over the last axis of ``x […, n]``, ``[…, 1]`` in fp32 or wider."""
    # Not by the length of x, whose square root is rounded: where a gradient lies along x, little else is left of it.
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()


def norm(x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """Return the RMSNorm of ``x […, n]`` (Zhang and Sennrich 2019), whose :func:`inverse_rms` is ``inverse``."""
    normed = x * inverse
    return normed.mul_(weight) if normed.dtype == x.dtype else weight * normed.to(x.dtype)


def norm_backward(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor, into: Tensor) -> None:
    """Add to ``into`` the gradient of ``x`` for the gradient ``grad`` of :func:`norm`; ``grad`` is overwritten.

    d/dx of x·r with r = 1/rms is the gradient without its component along x: r (g − x r² mean(g x)).
    """
    g, wide = grad.to(inverse.dtype).mul_(weight), x.to(inverse.dtype)
    along = (g * wide).mean(-1, keepdim=True).mul_(inverse.square())
    into.add_(g.addcmul_(wide, along, value=-1).mul_(inverse))


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotate ``x [T, heads, head_dim]`` in place by angles of ``cos``, ``sin [T, head_dim / 2]``
    (:mod:`cbtrain.model.rope`). With ``-sin`` it is the gradient's way back."""
    half = x.shape[-1] // 2
    first, second, cos, sin = x[..., :half], x[..., half:], cos[:, None], sin[:, None]
    turned = first * sin
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).add_(turned)


def swiglu(gate_up: Tensor) -> Tensor:
    """Return ``silu(gate) · up [T, n]`` of ``gate_up [T, 2n]``."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


def swiglu_backward(grad: Tensor, gate_up: Tensor) -> None:
    """Overwrite ``gate_up [T, 2n]`` with its gradient for the gradient ``grad [T, n]`` of :func:`swiglu`."""
    gate, up = gate_up.chunk(2, -1)
    activated, of_activated = F.silu(gate), grad * up
    torch.mul(grad, activated, out=up)
    silu_backward(of_activated, gate, grad_input=gate)
