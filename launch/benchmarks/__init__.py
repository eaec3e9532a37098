"""The benchmarks, a file each, run by ``python launch/benchmark.py NAME …``; they are no part of what is installed."""

import sys
from pathlib import Path

LAUNCHER = Path(__file__).resolve().parents[1] / "benchmark.py"


def command(name: str, *arguments: str) -> list[str]:
    """What runs the benchmark ``name`` in a process of its own."""
    return [sys.executable, str(LAUNCHER), name, *arguments]
