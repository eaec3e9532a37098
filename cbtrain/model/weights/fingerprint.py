"""A short name for a base model's weights, by which an adapter recognizes its base.

A fine-tuned sister of a base has its shapes and nearly its name, but other numbers nearly everywhere: a sample of each
tensor tells them apart at no cost while the weights stream by. The values are rounded to bf16 first, so that one model
has one fingerprint whether it is stored in fp32 or bf16, in one file or in thirty.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

VERSION = "v1"
SAMPLE = 256
"""Numbers that are looked at in each tensor, about, evenly spaced."""


class Fingerprint:
    """Collects tensors, in any order."""

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Take in ``tensor`` as it is stored, before any quantization; ``name`` without the prefix ``model.``"""
        flat = tensor.detach().reshape(-1)
        # An odd stride: an even one would look at one column only where sizes are powers of two.
        stride = max(1, flat.numel() // SAMPLE) | 1
        sample = flat[::stride].float().to(torch.bfloat16).cpu()
        shape = "x".join(map(str, tensor.shape))
        bits = sample.view(torch.int16).numpy().tobytes()
        self._digests[name] = blake2b(f"{name} {shape} ".encode() + bits, digest_size=16).digest()

    def hexdigest(self) -> str:
        """Return ``v1:`` and 24 hexadecimal digits; the number changes whenever the way to them does."""
        digest = blake2b(digest_size=12)
        for name in sorted(self._digests):
            digest.update(self._digests[name])
        return f"{VERSION}:{digest.hexdigest()}"
