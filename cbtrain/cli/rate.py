"""``cbtrain rate``: score existing sessions."""

from __future__ import annotations

import argparse
from pathlib import Path

from cbtrain.cli.parser import (
    Commands,
    add_command,
    add_study_arguments,
    add_upload_argument,
    continued_by,
    leading_console,
)


def add(commands: Commands) -> None:
    rate = add_command(
        commands,
        "rate",
        _rate,
        "score existing sessions, as labelled in their files",
        "Settings are key=value: corpus.path names the transcripts, evaluation.judging the rater. "
        "For human raters, `cbtrain rate export` writes blind forms and `cbtrain rate import` reads their ratings.",
    )
    add_study_arguments(rate)
    rate.add_argument(
        "--out", required=True, type=Path, help="folder for scores.csv; an interrupted run in it continues"
    )
    add_upload_argument(rate, "transcripts")


def _rate(parsed: argparse.Namespace) -> None:
    from cbtrain.config.loading import load_config
    from cbtrain.study.evaluation.rate import rate_corpus

    config = load_config(parsed.config, parsed.settings)
    with continued_by(parsed.command_line, "--out", parsed.out):
        rate_corpus(config, parsed.out, leading_console(), allow_upload=parsed.allow_upload)
