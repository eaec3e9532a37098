"""Benchmarks that print ratios measured side by side: ``python launch/benchmark.py corpus [PATH]``."""

import sys

from cbtrain.transcripts.benchmark import main as corpus

BENCHMARKS = {"corpus": corpus}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        sys.exit(f"usage: benchmark.py {{{','.join(BENCHMARKS)}}} …")
    BENCHMARKS[sys.argv[1]](sys.argv[2:])
