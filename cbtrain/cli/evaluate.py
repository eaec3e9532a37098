"""``cbtrain evaluate``: the second half of a study."""

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
    leading_console,
)


def add(commands: Commands) -> None:
    evaluate = add_command(
        commands, "evaluate", _evaluate, "the second half of a study: simulate, score, report", SETTINGS
    )
    add_study_arguments(evaluate)
    evaluate.add_argument(
        "--run", type=Path, dest="run_folder", help="a trained run folder (default: the newest; trains one if none)"
    )
    add_upload_argument(evaluate, "patients' profiles and simulated sessions")


def _evaluate(parsed: argparse.Namespace) -> None:
    from cbtrain.config.loading import load_config
    from cbtrain.study.evaluation.checks import check_evaluation
    from cbtrain.study.evaluation.evaluate import evaluate_study
    from cbtrain.study.pipeline import train_study
    from cbtrain.study.run_folder import new_run_folder, newest_trained_run, trained_config

    console = leading_console()
    folder = parsed.run_folder or newest_trained_run(Path("runs"))
    if folder is None:
        config = load_config(parsed.config, parsed.settings)
        check_evaluation(config, allow_upload=parsed.allow_upload)
        console.print("no trained run under runs/: training one first", highlight=False)
        folder = train_study(config, new_run_folder("study"), console)
    else:
        # The run's own settings are the defaults, so that an evaluation fits what was trained.
        config = load_config(parsed.config, parsed.settings, trained_config(folder))
    asyncio.run(evaluate_study(config, folder, console, allow_upload=parsed.allow_upload))
