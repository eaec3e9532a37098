"""Memory that the C library takes from the system for a sequence of allocations.

That is more than their sum, and by how much depends on its version and settings. So the sequence is replayed on the
library itself, in a process of its own; nothing is written to the memory, so none is really taken.

Beside each tensor's memory a program allocates many small objects, which settle in the holes that freed tensors leave,
so that the next tensor of the same size finds no room there. On glibc 2.36 the peak of small models is half as high
again for it (docs/log.md). Tensors beyond 32 MiB have mappings of their own and are not concerned.

Run as a script, it reads the events from standard input and prints the peak.
"""

from __future__ import annotations

import array
import ctypes
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

ALIGNMENT = 64
"""Of torch's tensors on CPUs."""

ROUNDS = 4
"""Steps that are replayed. The first, when the heap is still whole, is not counted."""

SMALL = (*(24, 40, 56, 72) * 3, 120, 120, 300, 300)
"""Bytes of the objects that come and go with a tensor: its parts in C++ and Python, a node of the graph, lists."""


class _Facts(ctypes.Structure):
    """``struct mallinfo2``: bytes of the heap, and of mappings that hold one allocation each."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")
    ] + [("fordblks", ctypes.c_size_t), ("keepcost", ctypes.c_size_t)]


def peak_of(resident: Sequence[int], events: Sequence[int], *, threshold: int | None = None) -> int | None:
    """Return the heap's peak in bytes while allocations of the sizes ``resident`` stay and ``events`` are repeated: a
    positive number allocates so many bytes, a negative one, ``-n``, frees the n-th allocation of its round. With
    ``threshold``, allocations of at least so many bytes get mappings of their own. Return None if the C library is not
    glibc."""
    numbers = array.array("q", [len(resident), *resident, *events])
    command = [sys.executable, "-I", __file__]  # isolated: modules in this folder must not shadow any
    environment = {**os.environ, **({"MALLOC_MMAP_THRESHOLD_": str(threshold)} if threshold else {})}
    done = subprocess.run(command, input=numbers.tobytes(), env=environment, capture_output=True, check=False)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def _replay(numbers: Sequence[int]) -> int:
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Facts
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    pointer = ctypes.c_void_p()
    where = ctypes.byref(pointer)

    def allocate(size: int) -> list[int | None]:
        small_blocks = [library.malloc(small) for small in SMALL]
        library.posix_memalign(where, ctypes.c_size_t(ALIGNMENT), ctypes.c_size_t(size))
        return [pointer.value, *small_blocks]

    def release(blocks: list[int | None]) -> None:
        for block in blocks:
            library.free(block)

    def taken() -> int:
        info = library.mallinfo2()
        return int(info.arena + info.hblkhd)

    resident, events = numbers[1 : 1 + numbers[0]], numbers[1 + numbers[0] :]
    before = taken()
    for size in resident:
        allocate(size)
    peaks = []
    for _ in range(ROUNDS):
        allocations: list[list[int | None]] = []
        peaks.append(taken())
        for event in events:
            if event < 0:
                release(allocations[-event - 1])
                allocations[-event - 1] = []
            else:
                allocations.append(allocate(event))
                peaks[-1] = max(peaks[-1], taken())
        for blocks in allocations:
            release(blocks)
    return int(statistics.median(peaks[1:])) - before


if __name__ == "__main__":
    numbers = array.array("q")
    numbers.frombytes(sys.stdin.buffer.read())
    print(_replay(numbers))
