"""What the ``corpus`` commands share: where the sessions come from, and how they are shown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cbtrain.transcripts.reading import CorpusSource
    from cbtrain.transcripts.source import OnBad
    from cbtrain.transcripts.types import Session


def source_of(parsed: argparse.Namespace) -> CorpusSource:
    from cbtrain.transcripts.reading import locate, speaker_labels

    labels = speaker_labels(parsed.therapist_label, parsed.patient_label)
    return locate(parsed.path, parsed.format, labels)


def whole(parsed: argparse.Namespace) -> Any:
    from cbtrain.transcripts.reading import read, speaker_labels

    labels = speaker_labels(parsed.therapist_label, parsed.patient_label)
    corpus = read(parsed.path, parsed.format, labels=labels, skip_bad=parsed.skip_bad)
    tell_skipped(list(corpus.skipped))
    return corpus


@contextmanager
def reading(
    source: CorpusSource, parsed: argparse.Namespace, on_bad: OnBad | None = None
) -> Iterator[Iterator[Session]]:
    """The sessions with a counter on the terminal; at the end it must have been some, and the bad ones are named."""
    from cbtrain.transcripts.reading import no_sessions

    skipped: list[str] = []
    count = 0

    def sessions() -> Iterator[Session]:
        nonlocal count
        for session in counted(source.sessions(on_bad or on_bad_of(parsed, skipped)), "Reading"):
            count += 1
            yield session
        if not count:
            raise no_sessions(source, len(skipped))

    yield sessions()
    tell_skipped(skipped)


def on_bad_of(parsed: argparse.Namespace, skipped: list[str] | None = None) -> OnBad:
    from cbtrain.transcripts.reading import refuse_with_hint

    kept = [] if skipped is None else skipped
    return (lambda error: kept.append(str(error))) if parsed.skip_bad else refuse_with_hint


def tell_skipped(skipped: list[str]) -> None:
    for line in skipped:
        print(f"left out: {line}", file=sys.stderr)
    if skipped:
        print(f"{len(skipped)} faults: what they name was left out", file=sys.stderr)


def counted(sessions: Iterable[Session], what: str, console: Console | None = None) -> Iterator[Session]:
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


def config_of(parsed: argparse.Namespace) -> Any:
    from cbtrain.config import load_config

    return load_config(parsed.config, parsed.settings)


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


def console_on_stdout() -> Console:
    from rich.console import Console

    return Console()
