"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), with the Llama 3.1 frequency scaling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cbtrain.model.architecture import Rope


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """fp32 ``[head_dim / 2]`` angular speeds, scaled as ``rope.type`` says."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / rope.theta**exponents
    if rope.type == "default":
        return frequencies
    # Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended linearly.
    wavelengths = 2 * math.pi / frequencies
    low = rope.original_max_positions / rope.low_freq_factor
    high = rope.original_max_positions / rope.high_freq_factor
    blend = (rope.original_max_positions / wavelengths - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    blended = (1 - blend) * frequencies / rope.factor + blend * frequencies
    scaled = torch.where(wavelengths > low, frequencies / rope.factor, frequencies)
    between = (wavelengths <= low) & (wavelengths >= high)
    return torch.where(between, blended, scaled)


def cos_sin(position_ids: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """fp32 cosines and sines ``[T, head_dim]`` at integer positions ``[T]``; both halves hold the same angles."""
    angles = position_ids.to(torch.float32)[:, None] * frequencies[None, :]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x [T, heads, head_dim]`` by ``cos``/``sin [T, head_dim]`` (already in x's dtype)."""
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, None] + rotated * sin[:, None]
