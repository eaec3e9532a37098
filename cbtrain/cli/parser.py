"""What the parsers of the commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where the parser of a command is added."""

SETTINGS = "Settings are key=value, e.g. therapist.learning_rate=1e-4; `cbtrain config` lists them all."


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], text: str, more: str = ""
) -> argparse.ArgumentParser:
    """The parser of the command ``name``, which ``run`` carries out; ``text`` is its help, ``more`` stands behind it in
    its own ``--help``."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip())
    parser.set_defaults(run=run)
    return parser


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config`` and settings over it."""
    parser.add_argument("--config", help="YAML file, or the name of a shipped config")
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """``key=value …``"""
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that override the config")


def add_upload_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """``--allow-upload``, for ``what``."""
    text = f"{what} of an imported corpus may be sent to the APIs that the settings name"
    parser.add_argument("--allow-upload", action="store_true", help=text)


def rank() -> int:
    """This process's number among those that ``torchrun`` started."""
    return int(os.environ.get("RANK", "0"))


def leading_console() -> Console:
    """Standard output; on ranks other than the first nothing is shown."""
    from rich.console import Console

    return Console(quiet=rank() != 0)
