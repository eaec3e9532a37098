"""``cbtrain evaluate``: the second half of a study."""

from __future__ import annotations

import argparse
import asyncio
import shlex
from pathlib import Path

from cbtrain.cli.parser import (
    SETTINGS,
    Commands,
    add_command,
    add_study_arguments,
    add_upload_argument,
    continued_by,
    leading_console,
)
from cbtrain.errors import UserError

RUNS = Path("runs")


def add(commands: Commands) -> None:
    evaluate = add_command(
        commands, "evaluate", _evaluate, "the second half of a study: simulate, score, report", SETTINGS
    )
    add_study_arguments(evaluate)
    evaluate.add_argument("--run", type=Path, dest="run_folder", help="a trained run folder (default: the newest)")
    add_upload_argument(evaluate, "patients' profiles and simulated sessions")


def _evaluate(parsed: argparse.Namespace) -> None:
    from cbtrain.config.loading import load_config
    from cbtrain.console import plain
    from cbtrain.study.evaluation.evaluate import evaluate_study
    from cbtrain.study.run_folder import newest_trained_run, trained_config

    console = leading_console()
    folder = parsed.run_folder or newest_trained_run(RUNS)
    if folder is None:
        named = ["--config", parsed.config] if parsed.config else []
        command = shlex.join(["cbtrain", "train", *named, *parsed.settings])
        hint = f"Train one first (`{command}`), or name the folder of one with --run."
        raise UserError("no trained run here, and evaluate trains none", where=f"{RUNS}/", hint=hint)
    if parsed.run_folder is None:
        plain(console, f"evaluating {folder}, the run trained last")
    # The run's own settings are the defaults, so that an evaluation fits what was trained.
    config = load_config(parsed.config, parsed.settings, trained_config(folder))
    with continued_by(parsed.command_line, "--run", folder):
        asyncio.run(evaluate_study(config, folder, console, allow_upload=parsed.allow_upload))
