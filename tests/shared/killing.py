"""End a process as a power cut would: with everything that it has started."""

import os
import signal
import subprocess


def children(process):
    """Process ids of those that ``process`` has started (torchrun's ranks, in order)."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def kill(process):
    """SIGKILL to ``process`` and its children, which torchrun puts into sessions of their own."""
    for pid in (process.pid, *children(process)):
        os.kill(pid, signal.SIGKILL)
    process.wait()
