"""Validation losses of a sweep's runs over the tokens that they have seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cbtrain.eval.report.figures.curve import short_count
from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import ARMS, DASHES, MARKERS, MUTED, SMALL, drawing, short_labels
from cbtrain.eval.report.formatting import fixed
from cbtrain.files import write_atomic
from cbtrain.study.sweep.files import FIGURE
from cbtrain.study.sweep.results import SweepResults
from cbtrain.study.sweep.row import RunResult

WIDTH, HEIGHT, LINE = 5.2, 2.8, 0.2
"""Inches: of the figure, of one speaker's plot, of a line of the legend."""

LETTERS = 34
"""Letters of a run's name."""

TONES = (3, 1, 2, 0)
"""Tones of a hue, as more runs than hues need them."""


def write_figure(results: SweepResults, folder: Path) -> None:
    """Write ``validation.svg`` and ``validation.png`` to ``folder``; nothing if no run has a validation loss."""
    drawn = sweep_figure(results)
    if drawn is not None:
        write_atomic(folder / f"{FIGURE}.svg", drawn.svg)
        write_atomic(folder / f"{FIGURE}.png", drawn.png)


def sweep_figure(results: SweepResults) -> Drawn | None:
    """Draw a plot for each speaker, in it a line for each run; None without any validation loss."""
    runs = [run for run in results.runs if _points(run)]
    speakers = list(dict.fromkeys(run.speaker for run in runs))
    if not speakers:
        return None
    labels = dict(zip((run.name for run in runs), short_labels([run.name for run in runs], LETTERS), strict=True))
    with drawing():
        heights = [HEIGHT + LINE * -(-sum(run.speaker == one for run in runs) // 2) for one in speakers]
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        plots = figure.subplots(len(speakers), 1, squeeze=False, height_ratios=heights)
        for (axes,), speaker in zip(plots, speakers, strict=True):
            members = [run for run in runs if run.speaker == speaker]
            _draw(axes, members, labels, results.best.get(speaker))
            axes.set_title(f"{speaker}: validation loss", loc="left", fontsize=SMALL, color=MUTED)
        return Drawn(FIGURE, figure, _alt(results))


def _draw(axes: Axes, runs: Sequence[RunResult], labels: dict[str, str], best: str | None) -> None:
    axes.grid(axis="y")
    for number, run in enumerate(runs):
        tone = TONES[number // len(ARMS) % len(TONES)]
        looks: dict[str, Any] = {"color": ARMS[number % len(ARMS)][tone], "linestyle": DASHES[tone]}
        width = 2.4 if run.name == best else 1.3
        label = f"{labels[run.name]} (best)" if run.name == best else labels[run.name]
        mark = MARKERS[number % len(MARKERS)]
        axes.plot(*zip(*_points(run), strict=True), label=label, linewidth=width, marker=mark, markersize=3.5, **looks)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.tick_params(labelcolor=MUTED)
    axes.set_xlabel("tokens")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.22), ncols=2, handlelength=2.2, columnspacing=1.2)


def _points(run: RunResult) -> list[tuple[float, float]]:
    """Return tokens and validation loss of each validation that was finite."""
    points = ((point.get("tokens"), point.get("validation_loss")) for point in run.curve or ())
    return [(tokens, loss) for tokens, loss in points if tokens is not None and loss is not None and loss == loss]


def _alt(results: SweepResults) -> str:
    parts = [f"{run.name} {fixed(run.validation_best, 3)}" for run in results.runs if _points(run)]
    return f"Validation loss of {len(parts)} runs over tokens; the lowest of each: {', '.join(parts)}."
