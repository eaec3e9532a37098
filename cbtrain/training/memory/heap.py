"""What the C library takes from the system for a sequence of allocations.

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


class _HeapInfo(ctypes.Structure):
    """``struct mallinfo2``: bytes of the heap, and of mappings that hold one allocation each."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")
    ] + [("fordblks", ctypes.c_size_t), ("keepcost", ctypes.c_size_t)]


def peak_of(resident: Sequence[int], events: Sequence[int], *, threshold: int | None = None) -> int | None:
    """Return the peak in bytes of holding tensors of the sizes ``resident`` and going through ``events`` again and
    again: a positive number allocates so many bytes, a negative one, ``-n``, frees the n-th allocation of its round.
    With ``threshold``, allocations from so many bytes on have mappings of their own. Return None if the C library is
    not glibc."""
    numbers = array.array("q", [len(resident), *resident, *events])
    command = [sys.executable, "-I", __file__]  # isolated: the modules beside this one must not shadow any
    environment = {**os.environ, **({"MALLOC_MMAP_THRESHOLD_": str(threshold)} if threshold else {})}
    done = subprocess.run(command, input=numbers.tobytes(), env=environment, capture_output=True, check=False)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def _replay(numbers: Sequence[int]) -> int:
    """Return the peak in bytes of the sequence that :func:`peak_of` sends: the number of sizes held, the sizes, the
    events. It is the median over rounds of the most that the C library has taken, minus what it had at the start."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _HeapInfo
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    pointer = ctypes.c_void_p()
    pointer_address = ctypes.byref(pointer)

    def allocate(size: int) -> list[int | None]:
        """Allocate a tensor of ``size`` bytes and its small objects; return their addresses."""
        small_objects = [library.malloc(small) for small in SMALL]
        library.posix_memalign(pointer_address, ctypes.c_size_t(ALIGNMENT), ctypes.c_size_t(size))
        return [pointer.value, *small_objects]

    def free(addresses: list[int | None]) -> None:
        for address in addresses:
            library.free(address)

    def bytes_taken() -> int:
        info = library.mallinfo2()
        return int(info.arena + info.hblkhd)

    held_count = numbers[0]
    held_sizes, events = numbers[1 : 1 + held_count], numbers[1 + held_count :]
    start = bytes_taken()
    for size in held_sizes:
        allocate(size)
    peaks = []
    for _ in range(ROUNDS):
        allocations: list[list[int | None]] = []
        peak = bytes_taken()
        for event in events:
            if event < 0:
                free(allocations[-event - 1])
                allocations[-event - 1] = []
            else:
                allocations.append(allocate(event))
                peak = max(peak, bytes_taken())
        peaks.append(peak)
        for addresses in allocations:
            free(addresses)
    return int(statistics.median(peaks[1:])) - start


if __name__ == "__main__":
    given = array.array("q")
    given.frombytes(sys.stdin.buffer.read())
    print(_replay(given))
