"""Show how a run stands that another process evaluates, or has evaluated: once, or until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live

from cbtrain.console import plain
from cbtrain.eval.watching.follow import Follower
from cbtrain.eval.watching.table import FRAMES_PER_SECOND, LINE_EVERY_S, MOST_ROWS, View, line, table
from cbtrain.journal import being_written


def show_once(journal: Path, console: Console) -> None:
    """Print the state of the run with the ``journal``: all therapists, as plain text."""
    for text in table(_view(Follower(journal)), console.width, None):
        console.print(text, soft_wrap=True)


def watch(journal: Path, console: Console) -> None:
    """Show the state of the run with the ``journal`` until no process writes there any more: on a terminal as a table,
    else in a line now and then. Nothing is written into the run."""
    if console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for view in _views(journal):
                rows = min(MOST_ROWS, console.height - 1)
                live.update(Group(*table(view, console.width, rows)), refresh=True)
        return
    line_at = 0.0
    for view in _views(journal):
        if time.monotonic() >= line_at or not view.written:
            line_at = time.monotonic() + LINE_EVERY_S
            plain(console, line(view))


def _views(journal: Path) -> Iterator[View]:
    """Yield the state now and then, for the last time when no process writes any more."""
    follower = Follower(journal)
    while True:
        view = _view(follower)
        yield view
        if not view.written:
            return
        time.sleep(1 / FRAMES_PER_SECOND)


def _view(follower: Follower) -> View:
    """Bring ``follower`` up to date; return what it knows."""
    written = being_written(follower.path)  # before reading: what the last process has written is complete then
    follower.update()
    return View(follower.tally, time.time() if written else follower.tally.time, written)
