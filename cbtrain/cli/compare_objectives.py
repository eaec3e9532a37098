"""``cbtrain compare-objectives``: supervised and preference tuning on the same pairs of answers."""

from __future__ import annotations

import argparse
from pathlib import Path

from cbtrain.cli.exit_codes import BAD_INPUT, DONE
from cbtrain.cli.parser import (
    SETTINGS,
    Commands,
    add_command,
    add_settings,
    add_upload_argument,
    continued_by,
    leading_console,
)
from cbtrain.errors import UserError

EXAMPLE = """
a file, my_comparison.yaml:
  config: llama3.1-8b-lora                 # what all runs start from: model, LoRA, packs, schedule
  pairs: pairs.jsonl                       # of answers; split by patient
  rejected_by: base                        # who wrote the rejected answers
  tokens: 2_000_000                        # of each tuned arm; or passes: 2
  learning_rates: [2.0e-5, 1.0e-4, 5.0e-4] # the best by the validation part is taken, for each arm
  seeds: [0, 1, 2]
  arms: {untuned: {}, prompted: {}, placebo: {}, sft: {}, sft-whole-text: {}, orpo: {}, dpo: {preference: {beta: 0.1}}}
  settings:
    evaluation: {patients: {library: depression}, patient_provider: {preset: openai, model: gpt-4o-mini}}

examples:
  cbtrain compare-objectives objectives-quick            # a shipped one: a small base, minutes on a CPU
  cbtrain compare-objectives objectives --pairs pairs.jsonl --dry-run        # a shipped one: 7B, on a GPU
  cbtrain compare-objectives my_comparison.yaml --out comparisons/first     # the same command continues
"""


def add(commands: Commands) -> None:
    compare = add_command(
        commands,
        "compare-objectives",
        _compare,
        "compare supervised and preference tuning: same pairs and tokens, each at its best learning rate",
        "Each tuned arm is trained on the same pairs of answers, at each learning rate with the first seed, then at "
        "the best one with every seed. One evaluation holds sessions of all arms with the same patients. See "
        f"docs/objectives-compared.md. {SETTINGS}",
    )
    compare.formatter_class = argparse.RawDescriptionHelpFormatter  # for the file below
    compare.epilog = EXAMPLE
    compare.add_argument("file", metavar="FILE", help="YAML file of a comparison, or the name of a shipped one")
    add_settings(compare)
    compare.add_argument("--pairs", metavar="PATH", help="pairs of answers, instead of those that FILE names")
    compare.add_argument("--out", type=Path, help="folder to make, or that of a comparison that continues")
    text = "runs at a time (default: 1), which share the processor"
    compare.add_argument("--jobs", type=int, default=1, metavar="N", help=text)
    compare.add_argument("--keep", action="store_true", help="keep what was trained at rates that are not the best")
    compare.add_argument("--dry-run", action="store_true", help="list the runs and their tokens; train nothing")
    add_upload_argument(compare, "patients' profiles and simulated sessions")
    compare.suggest = _shipped


def _compare(parsed: argparse.Namespace) -> int:
    from cbtrain.console import plain
    from cbtrain.study.method_comparison.comparison_file import find_comparison
    from cbtrain.study.objective_comparison.compare import compare_objectives, plan_objectives
    from cbtrain.study.objective_comparison.comparison_file import read_objectives
    from cbtrain.study.objective_comparison.page import print_results
    from cbtrain.study.run_folder import new_run_folder

    if parsed.jobs < 1:
        raise UserError(f"{parsed.jobs} runs at a time", where="--jobs", hint="At least 1.")
    file = read_objectives(find_comparison(parsed.file, of_objectives=True), parsed.settings, parsed.pairs)
    folder, console = parsed.out or new_run_folder("compare-objectives"), leading_console()
    if parsed.dry_run:
        plan_objectives(file, folder, console)
        return DONE
    with continued_by(parsed.command_line, "--out", folder):
        results = compare_objectives(
            file, folder, console, jobs=parsed.jobs, keep=parsed.keep, allow_upload=parsed.allow_upload
        )
    print_results(results, console)
    plain(console, f"\ncomparison: {folder}")
    return BAD_INPUT if any(one.failed for one in results.arms) else DONE


def _shipped() -> list[str]:
    from cbtrain.study.method_comparison.comparison_file import shipped_comparisons

    return shipped_comparisons(of_objectives=True)
