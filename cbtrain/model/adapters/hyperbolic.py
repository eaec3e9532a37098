"""Maps between a linear's input and a hyperboloid of curvature ``-1 / K``, as HypLoRA needs them (Yang et al. 2025,
arXiv 2410.04010).

The paper lifts ``x`` to the hyperboloid (exponential map at its origin), multiplies the space-like part by ``B A``, and
maps the result back (logarithm). Time-like parts cancel, and what is left is ``f(B A g(x))`` with

- ``g(x) = (x / s) sinhc(t)``, ``t = |x| / (s √K)``; beyond ``t = 12`` its length stays ``√K sinh(12)``;
- ``f(y) = y asinhc(|y| / √K)``,

``sinhc(t) = sinh(t) / t`` and ``asinhc(t) = asinh(t) / t``. This form is equal to the maps and needs no division by
something that may be zero. With ``K → ∞`` it is LoRA of ``x / s``.

The authors' program computes another logarithm (:func:`code_logarithm`), which is this one at ``K = 1`` only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LONGEST = 12.0
"""Of the argument of sinh: beyond it, directions only."""

SMALL = 0.05
"""Below it the series are more exact than the quotients."""

CODE_LEAST, CODE_NEAR, CODE_NORM = 1e-6, 1.01, 1e-7
"""Constants of the authors' program: the least ``θ - 1``, where its arcosh is a root, and the least norm."""


def exponential(x: Tensor, root_k: Tensor, s: Tensor) -> Tensor:
    """Return the space-like part ``g(x)`` of the point that ``x [T, n]`` is mapped to. ``root_k`` is √K, ``s`` the norm
    scale (scalars). No gradient flows through the length where that is held."""
    norm = _norm(x)
    t = norm / (s * root_k)
    near = (x / s) * _sinhc(t.clamp(max=LONGEST))
    held = t > LONGEST
    far = root_k * math.sinh(LONGEST) * x / torch.where(held, norm, 1.0)
    return torch.where(held, far, near)


def logarithm(y: Tensor, root_k: Tensor) -> Tensor:
    """Return ``f(y)`` of space-like parts ``y [T, n]``."""
    return y * _asinhc(_norm(y) / root_k)


def code_logarithm(y: Tensor, root_k: Tensor) -> Tensor:
    """Return what the authors' program computes in place of :func:`logarithm`: with the time-like part
    ``√(|y|² + 1/K)`` in place of ``√(|y|² + K)``. Near ``y = 0`` its length is a constant, or jumps."""
    norm = _norm(y)
    theta = (norm.square() + root_k**-2).sqrt() / root_k
    near = theta < CODE_NEAR
    root = (2 * (theta - 1).clamp(min=CODE_LEAST)).sqrt()
    angle = torch.where(near, root, torch.acosh(torch.where(near, 2.0, theta)))
    return root_k * angle * y / norm.clamp(min=CODE_NORM)


def _norm(x: Tensor) -> Tensor:
    """Return lengths ``[…, 1]`` of rows; the gradient at a row of zeros is zero."""
    squares = x.square().sum(-1, keepdim=True)
    zero = squares == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())


def _sinhc(t: Tensor) -> Tensor:
    small, square = t < SMALL, t.square()
    series = 1 + square / 6 * (1 + square / 20 * (1 + square / 42))
    wide = torch.where(small, 1.0, t)
    return torch.where(small, series, torch.sinh(wide) / wide)


def _asinhc(t: Tensor) -> Tensor:
    small, square = t < SMALL, torch.where(t < SMALL, t, 0.0).square()
    series = 1 - square / 6 + 3 * square**2 / 40 - 5 * square**3 / 112 + 35 * square**4 / 1152
    wide = torch.where(small, 1.0, t)
    return torch.where(small, series, torch.asinh(wide) / wide)
