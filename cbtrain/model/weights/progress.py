"""A bar while weights are read: eight billion numbers take a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cbtrain.model.weights.reading import Progress as Report


@contextmanager
def loading_bar(console: Console, text: str = "Loading weights") -> Iterator[Report]:
    """Yield what ``load_decoder`` calls as bytes come in; on a terminal it moves a bar, which vanishes at the end."""
    columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)
