"""``cbtrain train``: the first half of a study."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli.parser import (
    SETTINGS,
    Commands,
    add_command,
    add_study_arguments,
    continued_by,
    leading_console,
    options_of,
)
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from cbtrain.config.schema import StudyConfig


def add(commands: Commands) -> None:
    text = "the first half of a study: base model, therapist and patient adapters"
    train = add_command(commands, "train", _train, text, SETTINGS)
    add_study_arguments(train)
    train.add_argument(
        "--out",
        type=Path,
        help="run folder to make (default: runs/train-DATE-TIME), or the folder of a run that was interrupted, or "
        "stopped by a signal (exit status 75): it continues with its own settings",
    )


def _train(parsed: argparse.Namespace) -> None:
    from cbtrain.config.loading import load_config
    from cbtrain.console import plain
    from cbtrain.study.pipeline import train_study
    from cbtrain.study.run_folder import begun_settings, new_run_folder

    folder = parsed.out or new_run_folder("train")
    config = load_config(parsed.config, parsed.settings, begun_settings(folder))
    console = leading_console()
    with continued_by(parsed.command_line, "--out", folder):
        folder = train_study(config, folder, console, options_of(parsed))
    plain(console, f"\ntrained: {folder}\nnext: {next_step(config, folder)}")


def next_step(config: StudyConfig, folder: Path) -> str:
    """Return the command that makes use of the run in ``folder``: an evaluation, if it can be evaluated."""
    from cbtrain.model.methods import method_named
    from cbtrain.study.evaluation.checks import require_two_speakers

    try:
        require_two_speakers(config)
    except UserError:
        speaker = config.training.speakers[0]
        if method_named(getattr(config, speaker).method).trains_base:
            return f"cbtrain serve --model {folder / speaker}"
        return f"cbtrain serve --model {config.model.path or folder / 'base'} --adapter {folder / speaker}"
    return f"cbtrain evaluate --run {folder}"
