"""``cbtrain run``: the whole study."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from cbtrain.cli.parser import (
    SETTINGS,
    Commands,
    add_command,
    add_study_arguments,
    add_upload_argument,
    continued_by,
    leading_console,
    options_of,
    rank,
)


def add(commands: Commands) -> None:
    run = add_command(commands, "run", _run, "the whole study: train, simulate, score, report", SETTINGS)
    add_study_arguments(run)
    run.add_argument(
        "--out",
        type=Path,
        help="run folder to make (default: runs/study-DATE-TIME), or the folder of an interrupted run, which continues",
    )
    add_upload_argument(run, "patients' profiles and simulated sessions")


def _run(parsed: argparse.Namespace) -> None:
    from cbtrain.config.loading import load_config
    from cbtrain.study.run_folder import begun_settings, new_run_folder

    folder = parsed.out or new_run_folder("study")
    config = load_config(parsed.config, parsed.settings, begun_settings(folder))
    from cbtrain.study.evaluation.checks import check_evaluation
    from cbtrain.study.evaluation.evaluate import evaluate_study
    from cbtrain.study.pipeline import train_study

    check_evaluation(config, allow_upload=parsed.allow_upload)
    console = leading_console()
    with continued_by(parsed.command_line, "--out", folder):
        folder = train_study(config, folder, console, options_of(parsed))
    if rank() == 0:  # training takes every rank of a torchrun, evaluation one process
        agreed = ["--allow-upload"] if parsed.allow_upload else []
        with continued_by(["evaluate", *agreed], "--run", folder):
            asyncio.run(evaluate_study(config, folder, console, allow_upload=parsed.allow_upload))
