"""Terminal output of a running command: headings, lines under them, tables, progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Item = TypeVar("Item")


def heading(console: Console, stage: str, text: str) -> None:
    console.print(f"\n[bold]{stage}  {text}[/]", highlight=False)


def say(console: Console, text: str) -> None:
    """Print a line under a heading."""
    plain(console, f"     {text}")


def plain(console: Console, text: str, style: str | None = None) -> None:
    """Print ``text`` as it is: no markup, no coloured numbers, no line breaks of our own."""
    console.print(text, highlight=False, markup=False, soft_wrap=True, style=style)


@contextmanager
def loading_bar(console: Console, text: str = "Loading weights") -> Iterator[Callable[[int, int], None]]:
    """Yield a function for ``load_decoder`` to call with bytes done and bytes in all. On a terminal it moves a bar,
    which vanishes at the end."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


@contextmanager
def counted_bar(console: Console, text: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with how many are done and how many there are. On a terminal it moves a bar, which
    vanishes at the end."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def counting(sessions: Iterable[Item], what: str, console: Console | None = None) -> Iterator[Item]:
    """Yield ``sessions`` and show their number so far on ``console`` (default: standard error) if it is a terminal.

    Print meanwhile through the same console only, or the two write over each other.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = console or Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn(what), TextColumn("{task.completed:,} sessions"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        for session in sessions:
            yield session
            progress.advance(task)


def table_of(first: str, *others: str, numbers: int | None = None, words: int = 0) -> Table:
    """Return a table. Of the columns ``others``, the last ``words`` are texts, flush left, and the ``numbers`` columns
    before them (default: all) are flush right."""
    from rich import box
    from rich.table import Table

    table = Table(first, box=box.SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=True)
    start = len(others) - words - (len(others) - words if numbers is None else numbers)
    for index, name in enumerate(others):
        right = start <= index < len(others) - words
        table.add_column(name, justify="right" if right else "left", no_wrap=right)
    return table
