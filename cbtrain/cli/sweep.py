"""``cbtrain sweep``: several adapters over one base."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path

from cbtrain.cli.parser import (
    SETTINGS,
    Commands,
    add_command,
    add_optional_word,
    add_settings,
    continued_by,
    leading_console,
    options_of,
)
from cbtrain.errors import UserError

EXAMPLE = """
a sweep file, my_sweep.yaml:
  common:                                  # every run
    config: llama3.1-8b-qlora              # a shipped config, or a file beside this one
    corpus.path: my_corpus
    speaker: therapist                     # or patient; a run trains one adapter
  grid:                                    # every combination: rank-8_seed-0, rank-8_seed-1, …
    therapist.lora.rank: [8, 32]
    therapist.seed: [0, 1]
  runs:                                    # and runs by names of your own
    placebo: {corpus.path: placebo_corpus}
    patient: {speaker: patient}

examples:
  cbtrain sweep quick                                    # a shipped one: five adapters of a tiny base
  cbtrain sweep my_sweep.yaml --dry-run                  # what each run would be trained on
  cbtrain sweep my_sweep.yaml --out sweeps/first         # train; the same command continues
  torchrun --nproc-per-node 4 launch/sweep.py my_sweep.yaml --out sweeps/first     # runs are dealt out over GPUs
"""


def add(commands: Commands) -> None:
    sweep = add_command(
        commands,
        "sweep",
        _sweep,
        "train several adapters over one base, and compare them by held-out loss",
        "The base is loaded once and documents are made once. Each run has its own adapter, optimizer, validation, "
        "checkpoints, end and folder (OUT/NAME), and comes to what `cbtrain train` would have come to. " + SETTINGS,
    )
    sweep.formatter_class = argparse.RawDescriptionHelpFormatter  # for the file below
    sweep.description = textwrap.fill(sweep.description or "", min(shutil.get_terminal_size().columns, 120) - 2)
    sweep.epilog = EXAMPLE
    text = "the sweep: a YAML file of runs, or the name of a shipped one; without it, that of the sweep in --out"
    add_optional_word(sweep, "file", text)
    sweep.suggest = _shipped
    sweep.add_argument(
        "--out",
        type=Path,
        help="folder to make (default: runs/sweep-DATE-TIME), or that of a sweep that was interrupted, or that gets "
        "more runs: finished runs are kept",
    )
    sweep.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="runs that take turns, of each rank (default: all); fewer need less memory",
    )
    sweep.add_argument(
        "--joint",
        action="store_true",
        help="compute small packs of several runs in one pass through the base: faster, and equal up to rounding, not "
        "to the bit",
    )
    sweep.add_argument(
        "--dry-run", action="store_true", help="read settings and corpora, show what would be trained, and stop"
    )
    add_settings(sweep)


def _sweep(parsed: argparse.Namespace) -> None:
    from cbtrain.console import plain
    from cbtrain.study.run_folder import new_run_folder
    from cbtrain.study.sweep.options import Options
    from cbtrain.study.sweep.results import print_results, refuse_failed
    from cbtrain.study.sweep.sweep import plan_sweep, train_sweep

    if parsed.at_once is not None and parsed.at_once < 1:
        raise UserError(f"{parsed.at_once} runs at once", where="--at-once", hint="At least 1.")
    folder = parsed.out or new_run_folder("sweep")
    file = _file(parsed, folder)
    configs = plan_sweep(file, parsed.settings, folder)
    console, options = leading_console(), Options(parsed.at_once, parsed.joint, options_of(parsed))
    if parsed.dry_run:
        from cbtrain.study.sweep.dry_run import print_plan

        print_plan(configs, file, folder, console, options)
        return
    with continued_by(parsed.command_line, "--out", folder):
        results = train_sweep(configs, file, folder, console, options)
    if results is None:
        return
    print_results(results, console)
    plain(console, f"\nsweep: {folder}")
    if trained := [*results.best.values(), *(run.name for run in results.runs if not run.failed)]:
        plain(console, f"next: {_next_step(folder, trained[0])}")
    refuse_failed(results, folder)


def _file(parsed: argparse.Namespace, folder: Path) -> Path:
    from cbtrain.study.sweep.files import SWEEP
    from cbtrain.study.sweep.sweep_file import find_sweep

    if parsed.file is not None:
        return find_sweep(parsed.file)
    if parsed.out is not None and (folder / SWEEP).is_file():
        return folder / SWEEP
    hint = "Name a file of runs (`cbtrain sweep --help` has one), or continue with --out."
    raise UserError("which sweep?", where="sweep", hint=hint)


def _shipped() -> list[str]:
    from cbtrain.files import shipped

    return shipped("sweeps")


def _next_step(folder: Path, best: str) -> str:
    from cbtrain.cli.train import next_step
    from cbtrain.config.loading import load_config
    from cbtrain.study.run_files import CONFIG

    run = folder / best
    return next_step(load_config(None, (), run / CONFIG), run)
