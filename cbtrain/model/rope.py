"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), with linear, Llama 3.1 and YaRN frequency scaling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cbtrain.model.rope_keys import Rope


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Return the angular speeds, fp32 ``[head_dim / 2]``, scaled as ``rope.type`` says."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / rope.theta**exponents
    if rope.type == "default":
        return frequencies
    if rope.type == "linear":
        return frequencies / rope.factor
    if rope.type == "yarn":
        return _yarn(rope, frequencies, head_dim)
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


def _yarn(rope: Rope, frequencies: Tensor, head_dim: int) -> Tensor:
    """YaRN (Peng et al. 2023, arXiv 2309.00071, section 3.2): dimensions that turn more than ``beta_fast`` times in the
    original context stay, those that turn less than ``beta_slow`` times are stretched, the others blended."""

    def dimension(turns: float) -> float:
        return head_dim * math.log(rope.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low = max(math.floor(dimension(rope.beta_fast)), 0)
    high = min(math.ceil(dimension(rope.beta_slow)), head_dim - 1)
    steps = torch.arange(head_dim // 2, dtype=torch.float32)
    stretched = ((steps - low) / max(high - low, 0.001)).clamp(0, 1)
    return frequencies / rope.factor * stretched + frequencies * (1 - stretched)


def cos_sin(position_ids: Tensor, frequencies: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """fp32 cosines and sines ``[T, head_dim]`` at integer positions ``[T]``, times ``factor``; both halves hold the
    same angles."""
    angles = position_ids.to(torch.float32)[:, None] * frequencies[None, :]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * factor, angles.sin() * factor


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x [T, heads, head_dim]`` by ``cos``/``sin [T, head_dim]`` (already in x's dtype)."""
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, None] + rotated * sin[:, None]
