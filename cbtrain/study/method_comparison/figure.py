"""A comparison as a figure: for each method F1, forgetting and memory, a dot for each seed."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import ARMS, MUTED, SMALL, drawing, short_labels
from cbtrain.files import write_atomic
from cbtrain.study.method_comparison.results import MethodResult, Results

FIGURE = "comparison"

WIDTH, ROW, MARGIN = 9.0, 0.34, 1.2
"""Inches: of the figure, of a method's row, of title and axis."""

LETTERS = 20
"""Letters of a method's name."""


def write_figure(results: Results, folder: Path) -> None:
    """Write ``comparison.svg`` and ``comparison.png`` to ``folder``; nothing if no method was measured."""
    drawn = comparison_figure(results)
    if drawn is not None:
        write_atomic(folder / f"{FIGURE}.svg", drawn.svg)
        write_atomic(folder / f"{FIGURE}.png", drawn.png)


def comparison_figure(results: Results) -> Drawn | None:
    """Draw the methods below each other; None if none was measured."""
    methods = [one for one in results.methods if one.f1 is not None]
    if not methods:
        return None
    texts = list(methods[0].kl or {})
    parts = [("F1\non the test part", "f1"), *((f"KL to the base,\n{text}", f"KL, {text}") for text in texts)]
    parts.append(("peak memory,\nMB", "memory"))
    with drawing():
        height = MARGIN + ROW * len(methods)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        plots = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
        for axes, (title, column) in zip(plots, parts, strict=True):
            _draw(axes, methods, results, column)
            axes.set_title(title, loc="left", fontsize=SMALL, color=MUTED)
        names = short_labels([one.name for one in methods], LETTERS)
        plots[0].set_yticks(range(len(methods)), names)
        plots[0].invert_yaxis()
        return Drawn(FIGURE, figure, _alt(methods))


def _draw(axes: Axes, methods: list[MethodResult], results: Results, column: str) -> None:
    """Draw the values of ``column`` of all runs, and a bar at the mean of each method."""
    axes.grid(axis="x")
    scale = 1e-6 if column == "memory" else 1.0
    for place, one in enumerate(methods):
        values = [scale * run[column] for run in results.runs if run["method"] == one.name]
        colour = ARMS[place % len(ARMS)][2]
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=5, alpha=0.55, markeredgewidth=0)
        axes.plot([sum(values) / len(values)], [place], "|", color=colour, markersize=16, markeredgewidth=2)
    axes.margins(x=0.15)
    if column != "f1":  # where the differences are what one looks for, not the distance from nothing
        axes.set_xlim(left=0)
    axes.tick_params(labelcolor=MUTED)


def _alt(methods: list[MethodResult]) -> str:
    parts = [f"{one.name} {one.f1.mean:.3f}" for one in methods if one.f1 is not None]
    return f"F1, forgetting and memory of {len(parts)} methods; F1, mean over seeds: {', '.join(parts)}."
