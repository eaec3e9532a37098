"""The machine that is to train: its memory, and how fast it may be."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cbtrain.errors import UserError
from cbtrain.training.telemetry.peak import data_sheet

MIB = 1 << 20

CONTEXT = 1_000_000_000
"""Bytes of a GPU that CUDA's context, libraries and an allocator in pieces keep from the tensors."""

LIBRARIES = 600_000_000
"""Bytes that Python, torch and the tokenizer take on a CPU, before a model is loaded."""

ASSUMED_SHARE = 0.4
"""Share of the peak that training is taken to reach on a GPU that is not here."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """``name`` as CUDA gives it, ``memory`` in bytes as the driver reports it, ``fp32`` the data sheet's TFLOP/s
    without TF32."""

    name: str
    memory: int
    fp32: float

    @property
    def bf16(self) -> float:
        """TFLOP/s of dense bf16 products."""
        tflops = data_sheet(self.name)
        assert tflops is not None
        return tflops


GPUS = {
    "h200": Gpu("NVIDIA H200", 143_771 * MIB, 67),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 81_559 * MIB, 67),
    "b200": Gpu("NVIDIA B200", 183_359 * MIB, 75),
    "a100-80gb": Gpu("NVIDIA A100-SXM4-80GB", 81_920 * MIB, 19.5),
    "a100-40gb": Gpu("NVIDIA A100-SXM4-40GB", 40_960 * MIB, 19.5),
    "l40s": Gpu("NVIDIA L40S", 46_068 * MIB, 91.6),
    "l4": Gpu("NVIDIA L4", 23_034 * MIB, 30.3),
    "a10g": Gpu("NVIDIA A10G", 23_028 * MIB, 35),
    "rtx4090": Gpu("NVIDIA GeForce RTX 4090", 24_564 * MIB, 82.6),
    "rtx3090": Gpu("NVIDIA GeForce RTX 3090", 24_576 * MIB, 35.6),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """``kind`` is ``cpu`` or ``cuda``. ``memory`` are all bytes there are for training, of which ``reserve`` goes to
    what is no tensor. ``gpu`` is set if it is not this machine, and time is estimated instead of measured."""

    name: str
    kind: str
    memory: int
    gpu: Gpu | None = None

    @property
    def reserve(self) -> int:
        return CONTEXT if self.kind == "cuda" else LIBRARIES

    def shared_by(self, ranks: int) -> int:
        """Return how many of ``ranks`` take their memory from this machine's: on a CPU all of them."""
        return ranks if self.kind == "cpu" else 1

    def share_of(self, ranks: int) -> Machine:
        """Return what each of ``ranks`` that train by themselves here has of it: on a CPU an equal part of its memory
        beyond the reserve, so that one's peak fits into its part if as many peaks fit into the whole."""
        count = self.shared_by(ranks)
        return replace(self, memory=self.reserve + (self.memory - self.reserve) // count)

    def beside(self, kept: int) -> Machine:
        """Return the machine without ``kept`` bytes of its memory."""
        return replace(self, memory=self.memory - kept)

    def fits(self, peak: int) -> bool:
        return peak + self.reserve <= self.memory


def this_machine(device: str, memory: float | None = None) -> Machine:
    """Return the machine that runs this, with ``memory`` GB (1e9 bytes) in place of what it has."""
    given = _bytes(memory)
    if torch.device(device).type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        left = without_others(total, free, torch.cuda.memory_reserved(device))
        return Machine(torch.cuda.get_device_name(device), "cuda", given or left)
    return Machine("this machine's CPU", "cpu", given or available_memory())


def without_others(total: int, free: int, own: int) -> int:
    """Return the bytes of a GPU less those that other processes hold: ``free`` are nobody's, ``own`` in this process's
    allocator. Up to :data:`CONTEXT` bytes besides are taken to be its own too."""
    return total - max(total - free - own - CONTEXT, 0)


def other_machine(gpu: str, memory: float | None = None) -> Machine:
    """Return a GPU by its name. Raises UserError on an unknown one."""
    key = gpu.lower().replace("_", "-")
    if key not in GPUS:
        hint = f"Known: {', '.join(GPUS)}; with --memory, the nearest of them."
        raise UserError(f"unknown GPU {gpu!r}", where="--gpu", hint=hint)
    return Machine(GPUS[key].name, "cuda", _bytes(memory) or GPUS[key].memory, GPUS[key])


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that a process can still allocate: of the system, or of its control group if that is less."""
    free = _field(proc / "meminfo", r"MemAvailable:\s+(\d+) kB")
    limits = [1024 * free] if free is not None else []
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, taken = _field(cgroup / limit, r"(\d+)"), _field(cgroup / used, r"(\d+)")
        if most is not None and taken is not None:
            limits.append(max(most - taken, 0))
    if not limits:
        raise UserError(
            "this system does not say how much memory is free", where="--memory", hint="Give it: --memory GB."
        )
    return min(limits)


def _field(file: Path, pattern: str) -> int | None:
    try:
        match = re.search(pattern, file.read_text())
    except OSError:
        return None
    return int(match[1]) if match else None


def _bytes(memory: float | None) -> int | None:
    if memory is not None and not 0 < memory < math.inf:
        raise UserError(f"{memory:g} GB is no amount of memory", where="--memory", hint="Give a positive number of GB.")
    return None if memory is None else int(memory * 1e9)
