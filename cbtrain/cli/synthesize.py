"""``cbtrain synthesize``: write new sessions with a large model."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from cbtrain.cli.exit_codes import BAD_INPUT, DONE
from cbtrain.cli.parser import (
    Commands,
    add_command,
    add_settings,
    add_upload_argument,
    continued_by,
    leading_console,
)
from cbtrain.errors import UserError


def add(commands: Commands) -> None:
    synthesize = add_command(commands, "synthesize", _synthesize, "write new sessions with a large model behind an API")
    synthesize.add_argument("--config", default="hermes", help="YAML file, or the name of a shipped config")
    synthesize.add_argument("--profiles", default="sample", help="corpus whose patients' profiles are used")
    synthesize.add_argument(
        "--out", required=True, type=Path, help="folder to write to; an interrupted run in it continues"
    )
    add_upload_argument(synthesize, "patients' profiles")
    add_settings(synthesize, of="synthesis", example="sessions=4 provider.model=NAME")


def _synthesize(parsed: argparse.Namespace) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from cbtrain.config.loading import load_synthesis_config
    from cbtrain.study.consent import require_consent, stays_here
    from cbtrain.synthesis.prompts import PARTS
    from cbtrain.synthesis.write import write_corpus
    from cbtrain.transcripts.reading import read

    config = load_synthesis_config(str(parsed.config), parsed.settings)
    profiles = [course.profile for course in read(str(parsed.profiles)).courses if course.profile]
    allowed = parsed.allow_upload or stays_here(config.providers)
    require_consent(str(parsed.profiles), "its patients' profiles", config.provider.base_url, allowed)
    if not profiles:
        raise UserError("no patient profile here", where=parsed.profiles, hint="Add profiles.jsonl to it.")
    folder, console = parsed.out, leading_console()
    columns = (
        *(TextColumn("Writing"), BarColumn(), MofNCompleteColumn(), TextColumn("parts  {task.fields[line]}")),
        TimeElapsedColumn(),
    )
    with continued_by(parsed.command_line, "--out", folder), Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(profiles) * config.sessions * len(PARTS), line="")

        def advance(line: str) -> None:
            progress.update(task, advance=1, line=line)

        def warn(text: str) -> None:
            console.print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)

        written = asyncio.run(write_corpus(config, profiles, folder, advance, warn))
    sessions = sum(1 for _ in written.corpus.sessions())
    if sessions:
        text = f"{len(written.corpus.courses)} courses, {sessions} sessions: {folder / 'corpus'}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for course, reason in written.failed.items():
        line = f"cbtrain: {course} stopped at {reason}. Run the same command again to continue."
        print(line, file=sys.stderr)
    return BAD_INPUT if written.failed else DONE
