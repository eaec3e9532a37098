"""The runs of a sweep while they train: a table with a line a run in a terminal, now and then a line elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cbtrain.console import say
from cbtrain.training.in_turn import Seat
from cbtrain.training.telemetry import wording
from cbtrain.training.telemetry.display import INDENT, REFRESHES
from cbtrain.training.telemetry.status import Status

LINES = 10
"""Without a terminal: a line for each part of all tokens."""

MOST_IN_LINE = 8
"""Runs whose losses such a line names."""

NARROW = 80
"""Columns below which the table leaves out what is less needed."""


class SweepDisplay:
    """Shows the runs of ``seats``, which it reads again whenever it is :meth:`refresh`-ed; those that have ended keep
    their last state."""

    def __init__(self, seats: Sequence[Seat], console: Console) -> None:
        self.console = console
        self.statuses = {seat.name: seat.status for seat in seats}
        self._live: Live | None = None
        self._parts = self._parts_done()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show them during the body."""
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            yield
            return
        view = SweepView(self.statuses)
        self._live = Live(view, console=self.console, refresh_per_second=REFRESHES, vertical_overflow="ellipsis")
        with self._live:
            yield

    def refresh(self) -> None:
        """Print a line if there is no terminal and a tenth more of all tokens is done."""
        if self._live is not None or (parts := self._parts_done()) <= self._parts:
            return
        self._parts = parts
        say(self.console, line_of(self.statuses))

    def _parts_done(self) -> int:
        return int(share_done(self.statuses.values()) * LINES)


class SweepView:
    """Renders ``statuses`` by name to the width that there is."""

    def __init__(self, statuses: dict[str, Status]) -> None:
        self.statuses = statuses

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Padding(table_of_runs(self.statuses, options.max_width - INDENT), (0, 0, 0, INDENT))


def table_of_runs(statuses: dict[str, Status], width: int) -> Table:
    """Return the table: run, share of its tokens, step, loss (smoothed), best validation, speed, time left."""
    wide = width >= NARROW
    table = Table.grid(padding=(0, 2))
    names = ["run", "", *(["step"] if wide else []), "loss", "validation", *(["tokens/s"] if wide else []), "left"]
    for place, _ in enumerate(names):
        table.add_column(justify="left" if place == 0 else "right", no_wrap=True)
    table.add_row(*(Text(name, "dim") for name in names))
    left = times_left(statuses)
    for name, status in statuses.items():
        speed = wording.count(status.speed.tokens_per_second) if status.speed else wording.NONE
        time = status.state or (wording.clock(left[name]) if status.step else "starting")
        cells: list[str | Text] = [
            Text(name, "bold", overflow="ellipsis"),
            f"{status.share:.0%} of {wording.thousands(status.budget)}" if wide else f"{status.share:.0%}",
            *([f"{status.step:,}"] if wide else []),
            wording.fixed(status.smoothed.value),
            wording.fixed(status.best),
            *([speed] if wide else []),
            Text(time, "cyan"),
        ]
        table.add_row(*cells)
    return table


def line_of(statuses: dict[str, Status]) -> str:
    """Return where the sweep stands in one line."""
    left = max(times_left(statuses).values(), default=None)
    parts = [f"{name} {wording.fixed(status.smoothed.value)}" for name, status in statuses.items()]
    more = f" and {len(parts) - MOST_IN_LINE} more" if len(parts) > MOST_IN_LINE else ""
    losses = f"losses (smoothed) {', '.join(parts[:MOST_IN_LINE])}{more}"
    return f"{share_done(statuses.values()):.0%} of all tokens, {wording.clock(left)} left; {losses}"


def share_done(statuses: Collection[Status]) -> float:
    """Return the share of all tokens that is done; a run that has ended early has none left."""
    done = sum(min(status.tokens, status.budget) for status in statuses)
    planned = sum(status.tokens if status.state else status.budget for status in statuses)
    return min(1.0, done / max(planned, 1))


def times_left(statuses: dict[str, Status]) -> dict[str, float]:
    """Return the seconds until each run ends, if none ends early. They go side by side: until one has ended, every
    other one has had the same time or has ended too."""
    alone = {name: _alone(status) for name, status in statuses.items()}
    return {name: sum(min(own, other) for other in alone.values()) for name, own in alone.items()}


def _alone(status: Status) -> float:
    """Return the seconds that the run would need if it had the machine for itself; 0 if it has ended or not begun."""
    if status.state or status.speed is None or status.speed.tokens_per_second <= 0:
        return 0.0
    return max(0, status.budget - status.tokens) / status.speed.tokens_per_second
