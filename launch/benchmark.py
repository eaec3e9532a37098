"""Benchmarks that print ratios measured side by side: ``python launch/benchmark.py NAME …``."""

import importlib
import sys

BENCHMARKS = {
    "corpus": "cbtrain.transcripts.benchmark",
    "tokens": "cbtrain.tokens.benchmark",
    "model": "cbtrain.model.benchmark",
    "providers": "cbtrain.providers.benchmark",
    "analysis": "cbtrain.eval.analysis.benchmark",
    "report": "cbtrain.eval.report.benchmark",
    "plan": "cbtrain.training.planning.benchmark",
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        sys.exit(f"usage: benchmark.py {{{','.join(BENCHMARKS)}}} …")
    importlib.import_module(BENCHMARKS[sys.argv[1]]).main(sys.argv[2:])
