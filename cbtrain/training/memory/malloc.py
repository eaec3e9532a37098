"""Give freed memory back to the system at once, where training is to take little of it.

glibc keeps freed tensors of up to 32 MiB in its heap, where small objects soon stand in their way: what recomputation
spares is then never seen by the system. Beyond a threshold each allocation can have a mapping of its own, which ends
with it. New pages cost time (a fifth to a third of a small model's step on CPUs), so this is for those who have asked
for less memory and more time.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence

import torch

MMAP_THRESHOLD = -3
"""``M_MMAP_THRESHOLD`` of glibc's malloc.h."""

LOW, USUAL = 1 << 20, 32 << 20
"""Bytes from which an allocation gets a mapping of its own: while memory is given back, and as high as glibc's own
threshold climbs."""


def gives_back(device: torch.device | str, activation_checkpointing: str | Sequence[str]) -> bool:
    """Return whether training gives memory back with this level of activation checkpointing, or these of the layers."""
    levels = [activation_checkpointing] if isinstance(activation_checkpointing, str) else activation_checkpointing
    return torch.device(device).type == "cpu" and any(level != "none" for level in levels)


@contextlib.contextmanager
def returning_memory(device: torch.device | str, activation_checkpointing: str | Sequence[str]) -> Iterator[None]:
    """Inside, freed tensors go back to the system, on CPUs and where something is recomputed. Without glibc nothing
    changes."""
    if not gives_back(device, activation_checkpointing):
        yield
        return
    _set(LOW)
    try:
        yield
    finally:
        _set(USUAL)


def trim() -> None:
    """Return the free memory of the heap to the system."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set(threshold: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, threshold)
    trim()
