"""``cbtrain compare-methods``: methods of fine-tuning on a task with an exact measure."""

from __future__ import annotations

import argparse
from pathlib import Path

from cbtrain.cli.exit_codes import BAD_INPUT, DONE
from cbtrain.cli.parser import Commands, add_command, continued_by, leading_console
from cbtrain.errors import UserError

EXAMPLE = """
a file, my_comparison.yaml:
  base: my_model                           # null: a small base is made, in minutes on a CPU
  pairs: 5000                              # generated; or a folder of pairs
  rank: 8                                  # of LoRA; others train as many numbers as far as they can
  tokens: 200000                           # of each run
  seeds: [0, 1, 2]
  learning_rates: [3.0e-4, 1.0e-3, 3.0e-3] # the best by validation loss is taken, for each method
  methods:
    lora: {}
    sparse: {}
    full: {learning_rates: [1.0e-4, 3.0e-4, 1.0e-3]}
    mlp-only: {method: lora-mlp, lora: {alpha: 32}}

examples:
  cbtrain compare-methods quick                          # a shipped one: two methods, one seed
  cbtrain compare-methods my_comparison.yaml --out comparisons/first     # the same command continues
"""


def add(commands: Commands) -> None:
    compare = add_command(
        commands,
        "compare-methods",
        _compare,
        "compare methods of fine-tuning: the same tokens, as many trained numbers, each at its best learning rate",
        "Each method is trained on pairs of products (`cbtrain task entity-matching`), at each learning rate with the "
        "first seed, then at the best one with every seed. Measured: F1, perplexity, what is forgotten, memory, time "
        "and size on disk. See docs/methods.md.",
    )
    compare.formatter_class = argparse.RawDescriptionHelpFormatter  # for the file below
    compare.epilog = EXAMPLE
    compare.add_argument("file", metavar="FILE", help="YAML file of a comparison, or the name of a shipped one")
    compare.add_argument("--out", type=Path, help="folder to make, or that of a comparison that continues")
    text = "runs at a time (default: 1), which share the processor; then seconds are not those of a run alone"
    compare.add_argument("--jobs", type=int, default=1, metavar="N", help=text)
    compare.add_argument("--keep", action="store_true", help="keep what is trained, and checkpoints")
    compare.suggest = _shipped


def _compare(parsed: argparse.Namespace) -> int:
    from cbtrain.console import plain
    from cbtrain.study.method_comparison.compare import compare_methods
    from cbtrain.study.method_comparison.comparison_file import find_comparison, read_comparison
    from cbtrain.study.method_comparison.results import print_results
    from cbtrain.study.run_folder import new_run_folder

    if parsed.jobs < 1:
        raise UserError(f"{parsed.jobs} runs at a time", where="--jobs", hint="At least 1.")
    file = read_comparison(find_comparison(parsed.file))
    folder, console = parsed.out or new_run_folder("compare-methods"), leading_console()
    with continued_by(parsed.command_line, "--out", folder):
        results = compare_methods(file, folder, console, jobs=parsed.jobs, keep=parsed.keep)
    print_results(results, console)
    plain(console, f"\ncomparison: {folder}")
    return BAD_INPUT if any(one.failed for one in results.methods) else DONE


def _shipped() -> list[str]:
    from cbtrain.study.method_comparison.comparison_file import shipped_comparisons

    return shipped_comparisons()
