"""Dropout whose masks belong to documents and not to batches.

A mask is drawn for each document and linear from a seed of (seed, optimizer step, document, linear). So it stays the
same whatever else lies in the pack, on whichever rank the pack is computed, and when a layer is recomputed in the
backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor


class KeyedDropout:
    """Shared by all adapted linears of an adapter; :meth:`prepare` tells it what the next rows hold."""

    def __init__(self, rate: float, seed: int) -> None:
        self.rate, self.seed = rate, seed
        self._step = 0
        self._names: Sequence[str] = ()
        self._cu_seqlens: Sequence[int] = ()

    def prepare(self, step: int, names: Sequence[str], cu_seqlens: Sequence[int]) -> None:
        """Set the documents of the next packs: ``names``, with cumulative lengths ``cu_seqlens``."""
        self._step, self._names, self._cu_seqlens = step, names, cu_seqlens

    def __call__(self, x: Tensor, path: str) -> Tensor:
        """Return ``x [T, features]`` with a share ``rate`` of its entries zero and the others scaled up, at linear
        ``path``.

        Raises RuntimeError if the documents of the pack are not known.
        """
        if self.rate == 0:
            return x
        if not self._names or self._cu_seqlens[-1] != x.shape[0]:
            raise RuntimeError("dropout is keyed by documents: call adapter.prepare(step, names, cu_seqlens) first")
        masks = [
            self._mask(name, path, end - begin, x)
            for name, begin, end in zip(self._names, self._cu_seqlens, self._cu_seqlens[1:], strict=False)
        ]
        return x * (torch.cat(masks) / (1 - self.rate)).to(x.dtype)

    def _mask(self, name: str, path: str, tokens: int, x: Tensor) -> Tensor:
        key = f"{self.seed} {self._step} {path} {name}".encode()
        seed = int.from_bytes(blake2b(key, digest_size=7).digest(), "big")
        generator = torch.Generator(x.device).manual_seed(seed)
        return torch.rand(tokens, x.shape[-1], device=x.device, generator=generator) >= self.rate
