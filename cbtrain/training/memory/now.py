"""Memory that the process holds now."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Memory:
    """In GB (1e9 bytes): on a GPU the peak of what tensors took, and what the allocator holds; elsewhere what the
    process has resident, and nothing ``reserved``."""

    used: float
    reserved: float | None = None

    def __str__(self) -> str:
        return f"{self.used:.1f} GB" if self.reserved is None else f"{self.used:.1f} of {self.reserved:.1f} GB"


def memory_now() -> Memory:
    """Return the memory of this process on its current device."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return Memory(torch.cuda.max_memory_allocated() / 1e9, torch.cuda.memory_reserved() / 1e9)
    return Memory(resident_bytes() / 1e9)


def resident_bytes() -> int:
    """Return the resident bytes of this process, or their maximum so far on systems without the present number."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
