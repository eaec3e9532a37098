"""The live view of a run in a terminal: a bar over the token budget, and under it where the run stands."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cbtrain.training.telemetry import wording
from cbtrain.training.telemetry.status import Status

INDENT = 5
"""Columns left free at the left, as before the other lines of a study."""

WIDEST = 110
NARROW, NARROWEST = 73, 44
"""Below these widths (columns) the view leaves out columns of its grid, then all but the loss."""

REFRESHES = 2
"""A second: each costs the training thread some two milliseconds."""

BLOCKS = "▁▂▃▄▅▆▇█"


class Display:
    """Redraws itself from ``status`` while it is entered, and leaves its last state on the screen."""

    def __init__(self, status: Status, console: Console) -> None:
        self.live = Live(View(status), console=console, refresh_per_second=REFRESHES, vertical_overflow="crop")

    def start(self) -> None:
        self.live.start(refresh=True)

    def stop(self) -> None:
        self.live.stop()


class View:
    """Renders ``status`` to the width that there is."""

    def __init__(self, status: Status) -> None:
        self.status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        indent = INDENT if options.max_width >= NARROW + INDENT else 0
        width = min(options.max_width, WIDEST) - indent
        rows: list[RenderableType] = [bar(self.status, width), grid(self.status, width)]
        if width >= NARROWEST and len(self.status.curve.points) > 2 and not options.ascii_only:
            rows.append(curve(self.status))
        for row in rows:
            yield Padding(row, (0, 0, 0, indent))


def bar(status: Status, width: int) -> Table:
    """Return title, bar, share, tokens of the budget, time left; what does not fit is left out from the right."""
    row = Table.grid(padding=(0, 1))
    time = status.state or (f"{wording.clock(status.left)} left" if status.step else "starting")
    cells: list[RenderableType] = [
        Text(status.title, "bold"),
        ProgressBar(total=max(status.budget, 1), completed=min(status.tokens, status.budget), width=None),
        Text(f"{status.share:>4.0%}", "bold"),
    ]
    if width >= NARROWEST:
        cells.append(Text(f"{wording.thousands(status.tokens):>5}/{wording.thousands(status.budget)} tokens", "dim"))
    cells.append(Text(time, "cyan"))
    row.width = width
    for column in range(len(cells)):
        row.add_column(no_wrap=True, ratio=1 if column == 1 else None)
    row.add_row(*cells)
    return row


def grid(status: Status, width: int) -> Table:
    """Return a grid of names and numbers, in as many columns as fit into ``width``."""
    groups = _groups(status)
    if width < NARROWEST:
        shown = [[("loss", wording.fixed(status.loss)), groups[1][0]]]
    elif width < NARROW:
        shown = groups[:2]
    else:
        shown = groups
    table = Table.grid(padding=(0, 1))
    # Of a width of their own, so that columns stand still while numbers change.
    for column, widest in enumerate((6, 8, 15)[: len(shown)]):
        if column:
            table.add_column(width=1)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", no_wrap=True, min_width=widest)
    for line in zip(*shown, strict=True):
        table.add_row(*[cell for name, value in line for cell in ("", name, value)][1:])
    return table


def _groups(status: Status) -> list[list[tuple[str, str]]]:
    """Return three columns of four: losses, the run, its speed."""
    speed = status.speed
    return [
        [
            ("loss", wording.fixed(status.loss)),
            ("smoothed", wording.fixed(status.smoothed.value)),
            *_validation(status),
        ],
        [
            ("step", f"{status.step:,}"),
            ("epoch", str(status.epoch)),
            ("learning rate", wording.rate(status.learning_rate)),
            ("grad norm", wording.short(status.grad_norm)),
        ],
        [
            ("tokens/s", wording.count(speed.tokens_per_second) if speed else wording.NONE),
            ("supervised/s", wording.count(speed.supervised_tokens_per_second) if speed else wording.NONE),
            ("MFU / HFU", f"{wording.percent(speed.mfu)} / {wording.percent(speed.hfu)}%" if speed else wording.NONE),
            ("memory", str(status.memory or wording.NONE)),
        ],
    ]


def _validation(status: Status) -> list[tuple[str, str]]:
    if status.accuracy is None or status.best_accuracy is None:
        return [("validation", wording.fixed(status.validation)), ("best", wording.fixed(status.best))]
    return [("ranked rightly", f"{status.accuracy:.1%}"), ("best", f"{status.best_accuracy:.1%}")]


def curve(status: Status) -> Text:
    """Return the loss from the first step on, as a line of blocks."""
    points = list(status.curve.points)
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    blocks = "".join(BLOCKS[round((point - low) / span * (len(BLOCKS) - 1))] for point in points)
    return Text.assemble(("loss ", "dim"), (blocks, "cyan"), (f" {points[0]:.2f} → {points[-1]:.2f}", "dim"), end="")
