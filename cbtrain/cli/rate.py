"""``cbtrain rate``: the older name of ``cbtrain judge score``."""

from __future__ import annotations

from pathlib import Path

from cbtrain.cli import judge_audit
from cbtrain.cli.judge import rate
from cbtrain.cli.parser import Commands, add_command, add_study_arguments, add_upload_argument


def add(commands: Commands) -> None:
    older = add_command(
        commands,
        "rate",
        rate,
        "score existing sessions: the older name of `judge score`",
        "Settings are key=value: corpus.path names the transcripts, evaluation.judging the rater. "
        "For human raters, `cbtrain rate export` writes blind forms and `cbtrain rate import` reads their ratings.",
    )
    add_study_arguments(older)
    older.add_argument(
        "--out", required=True, type=Path, help="folder for scores.csv; an interrupted run in it continues"
    )
    add_upload_argument(older, "transcripts")
    judge_audit.add(commands, "rate audit", "test a judge: the older name of `judge audit`")
