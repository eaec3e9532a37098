"""Measure the peak memory of a run, and split it into weights, gradients, optimizer, activations and the rest.

    meter = MemoryMeter(device)                 # before anything is loaded
    decoder = load_decoder(…)
    meter.reset_peak()                          # what follows is training, not loading
    with meter.track_activations():             # around one forward pass, the largest pack's
        loss = loss_sum(decoder, pack)
    split = meter.split(weights=…, adapters=…, gradients=…, optimizer=…)
    meter.close()

On CUDA the peak is that of torch's allocator. On CPUs it is that of the process's anonymous memory, beyond what was in
use when the meter started: mapped files (libraries, tokenized corpora) are left out, since the system can reclaim their
pages. A thread samples it every ten milliseconds, so a shorter peak can be missed.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from cbtrain.training.memory.allocations import LiveStorages
from cbtrain.training.memory.malloc import trim

INTERVAL = 0.01
"""Seconds between two samples of the resident set, each of which costs some 15 microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySplit:
    """Bytes at the peak. The first six add up to ``total``, and none is negative.

    ``activations`` is what autograd keeps from the forward to the backward pass, ``workspace`` the rest: temporaries,
    what the backward pass computes again, the allocator's slack. ``measured`` is the peak itself. If the parts that
    are counted exceed it (they need not all be alive at one moment), ``overcounted`` is the excess, ``workspace`` is
    0, and ``total`` is their sum. ``reserved`` is what CUDA's allocator held at its peak, its slack
    included.
    """

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int
    total: int
    measured: int
    overcounted: int = 0
    reserved: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def split_of(
    measured: int,
    *,
    weights: int,
    adapters: int,
    gradients: int,
    optimizer: int,
    activations: int,
    reserved: int | None = None,
) -> MemorySplit:
    """Return ``measured`` bytes split into the given parts and the remaining workspace."""
    counted = weights + adapters + gradients + optimizer + activations
    total = max(counted, measured)
    return MemorySplit(
        weights=weights,
        adapters=adapters,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        workspace=total - counted,
        total=total,
        measured=measured,
        overcounted=total - measured,
        reserved=reserved,
    )


class MemoryMeter:
    """Measures from its construction on; :meth:`close` (or ``with``) ends its thread."""

    def __init__(self, device: torch.device | str) -> None:
        device = torch.device(device)
        self.activations = 0
        self._memory: _Memory = _CudaMemory(device) if device.type == "cuda" else _ProcessMemory()

    @property
    def peak(self) -> int:
        """Peak in bytes since the meter started or its peak was reset, beyond what was in use when it started."""
        return max(self._memory.highest() - self._memory.start, 0)

    def reset_peak(self) -> None:
        """Forget earlier peaks, those of loading for instance. Memory in use still counts."""
        self._memory.reset()

    @contextlib.contextmanager
    def track_activations(self) -> Iterator[None]:
        """Count what one forward pass, run in the body, leaves alive for the backward pass (autograd, activation
        checkpointing); its loss must be kept. The largest of several counts. It costs some 20 microseconds an
        operator."""
        granule = 512 if isinstance(self._memory, _CudaMemory) else 1
        live = LiveStorages(granule)
        with live:
            yield
        self.activations = max(self.activations, live.bytes)

    def split(self, *, weights: int, adapters: int, gradients: int, optimizer: int) -> MemorySplit:
        """Return the peak so far, split with the given bytes of the static parts."""
        return split_of(
            self.peak,
            weights=weights,
            adapters=adapters,
            gradients=gradients,
            optimizer=optimizer,
            activations=self.activations,
            reserved=self._memory.reserved(),
        )

    def close(self) -> None:
        """Stop sampling; the measurements stay."""
        self._memory.close()

    def __enter__(self) -> MemoryMeter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Memory(Protocol):
    """Bytes in use on one device; ``start`` of them when the meter started."""

    start: int

    def now(self) -> int: ...

    def highest(self) -> int: ...

    def reset(self) -> None: ...

    def reserved(self) -> int | None: ...

    def close(self) -> None: ...


class _CudaMemory:
    """Memory that torch's allocator has handed out on one CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = self.now()
        self.reset()

    def now(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    def highest(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)

    def reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def reserved(self) -> int:
        return torch.cuda.max_memory_reserved(self.device)

    def close(self) -> None:
        pass


class _ProcessMemory:
    """The anonymous memory of this process, sampled by a thread. Without /proc: the highest resident set since the
    process began, which cannot be reset."""

    def __init__(self) -> None:
        self.page = os.sysconf("SC_PAGE_SIZE")
        try:
            self.file: int | None = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:
            self.file = None
        # Memory that an earlier stage left free in the heap would be reused without being counted.
        gc.collect()
        trim()
        self.start = self._highest = self.now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory meter", daemon=True)
        if self.file is not None:
            self._thread.start()

    def now(self) -> int:
        if self.file is None:
            return _highest_resident()
        fields = os.pread(self.file, 128, 0).split()
        return (int(fields[1]) - int(fields[2])) * self.page  # resident less what is mapped from files

    def highest(self) -> int:
        self._look()
        return self._highest

    def reset(self) -> None:
        self._highest = self.now()

    def reserved(self) -> None:
        return None

    def close(self) -> None:
        if self.file is None or self._stop.is_set():
            return
        self._look()
        self._stop.set()
        self._thread.join()
        os.close(self.file)

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._look()

    def _look(self) -> None:
        if not self._stop.is_set():
            self._highest = max(self._highest, self.now())


def _highest_resident() -> int:
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest
