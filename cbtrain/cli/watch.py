"""``cbtrain watch``: how an evaluation stands, from another terminal."""

from __future__ import annotations

import argparse
from pathlib import Path

from cbtrain.cli.evaluate import RUNS
from cbtrain.cli.parser import Commands, add_command
from cbtrain.errors import UserError
from cbtrain.files import is_folder


def add(commands: Commands) -> None:
    """Add ``watch``."""
    watch = add_command(
        commands,
        "watch",
        _watch,
        "how a running evaluation stands: sessions, speed, money, time left",
        "It follows the run's journal until the run ends, and writes nothing there. Ctrl-C ends it, not the run.",
    )
    watch.add_argument("folder", nargs="?", metavar="RUN", type=Path, help="folder of the run (default: the newest)")
    watch.add_argument("--once", action="store_true", help="print the state and exit")


def _watch(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.console import plain
    from cbtrain.eval.watching.watch import show_once, watch
    from cbtrain.study.run_files import EVENTS

    console = Console()
    folder = parsed.folder or _newest(EVENTS)
    if not is_folder(folder):
        raise UserError("no such folder", where=folder, hint="Name the folder of a run.")
    if not (folder / EVENTS).is_file():
        hint = "It is made when `cbtrain evaluate` or `cbtrain judge score` begins."
        raise UserError(f"no journal ({EVENTS}) here yet", where=folder, hint=hint)
    if parsed.folder is None:
        plain(console, f"{folder}, the newest run with a journal")
    (show_once if parsed.once else watch)(folder / EVENTS, console)


def _newest(journal: str) -> Path:
    """Return the folder in ``runs/`` whose ``journal`` was written last. Raises UserError if there is none."""
    journals = [path for path in RUNS.glob(f"*/{journal}") if path.is_file()]
    if not journals:
        hint = "Name the folder of a run: cbtrain watch RUN."
        raise UserError("no run with a journal here", where=f"{RUNS}/", hint=hint)
    return max(journals, key=lambda path: path.stat().st_mtime).parent
