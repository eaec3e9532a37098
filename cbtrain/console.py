"""What a person sees while a command runs: stages, lines under them, tables, bars."""

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
    """A line under a heading."""
    plain(console, f"     {text}")


def plain(console: Console, text: str, style: str | None = None) -> None:
    """``text`` as it is: no markup, no colours of numbers, broken by the terminal alone."""
    console.print(text, highlight=False, markup=False, soft_wrap=True, style=style)


@contextmanager
def loading_bar(console: Console, text: str = "Loading weights") -> Iterator[Callable[[int, int], None]]:
    """Yield what ``load_decoder`` calls with bytes done and bytes in all: eight billion numbers take a while. On a
    terminal it moves a bar, which vanishes at the end."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def counting(sessions: Iterable[Item], what: str, console: Console | None = None) -> Iterator[Item]:
    """``sessions``, with their number so far on ``console`` (standard error if none is given) where it is a terminal.

    What is printed meanwhile must go through the same console, or the two write over each other.
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
    """A table whose last ``numbers`` columns (all but the first), before ``words`` more, are set flush right."""
    from rich import box
    from rich.table import Table

    table = Table(first, box=box.SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=True)
    start = len(others) - words - (len(others) - words if numbers is None else numbers)
    for place, name in enumerate(others):
        right = start <= place < len(others) - words
        table.add_column(name, justify="right" if right else "left", no_wrap=right)
    return table
