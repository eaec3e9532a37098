"""``cbtrain rate``: score sessions that exist already."""

from __future__ import annotations

import argparse
from pathlib import Path

from cbtrain.cli.parser import Commands, add_command, add_study_arguments, add_upload_argument, leading_console


def add(commands: Commands) -> None:
    rate = add_command(
        commands,
        "rate",
        _rate,
        "score sessions that exist already, as labelled in their files",
        "Settings are key=value: corpus.path names the transcripts, evaluation.judging the rater. People rate too: "
        "`cbtrain rate export` makes blind forms for them, `cbtrain rate import` brings their ratings back.",
    )
    add_study_arguments(rate)
    rate.add_argument("--out", required=True, type=Path, help="folder for scores.csv; an interrupted run in it goes on")
    add_upload_argument(rate, "transcripts")


def _rate(parsed: argparse.Namespace) -> None:
    from cbtrain.config.loading import load_config
    from cbtrain.study.evaluation.rate import rate_corpus

    config = load_config(parsed.config, parsed.settings)
    rate_corpus(config, parsed.out, leading_console(), allow_upload=parsed.allow_upload)
