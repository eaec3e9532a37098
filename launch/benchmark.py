"""Benchmarks that print ratios measured side by side: ``python launch/benchmark.py NAME …``."""

import importlib
import sys

NAMES = (
    "corpus",
    "tokens",
    "model",
    "kernels",
    "providers",
    "analysis",
    "report",
    "plan",
    "train",
    "sweep",
    "methods",
    "pairs",
    "generate",
    "serve",
    "evaluate",
)

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: benchmark.py {{{','.join(NAMES)}}} …")
    importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
