"""Learning curve of one training stage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import ARMS, MUTED, drawing
from cbtrain.eval.report.formatting import fixed
from cbtrain.eval.report.schema.training import TrainingStage

BEFORE, AFTER = ARMS[0][0], ARMS[0][3]
LETTERS = 9
"""The figure is narrower than the others, and so shown larger."""


def curve_figure(stage: TrainingStage, number: int = 0) -> Drawn | None:
    """Draw training and validation loss over the tokens seen, as the figure of stage ``number``. None without any
    loss."""
    name = stage.name or "model"
    series = {
        "train": _series((point.tokens, point.train_loss) for point in stage.curve),
        "validation": _series((point.tokens, point.validation_loss) for point in stage.curve),
    }
    if not any(series.values()):
        return None
    with drawing():
        figure = Figure(figsize=(3.4, 2.3), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="y")
        looks: dict[str, dict[str, Any]] = {
            "train": {"color": MUTED, "linewidth": 1},
            "validation": {"color": AFTER, "linewidth": 1.8, "marker": "o", "markersize": 3.5},
        }
        for key, points in series.items():
            if points:
                axes.plot(*zip(*points, strict=True), label=key, **looks[key])
        before = stage.validation_before
        if before is not None:
            axes.axhline(before, color=BEFORE, linewidth=1, linestyle=(0, (4, 3)), label="before")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        axes.tick_params(labelcolor=MUTED, labelsize=LETTERS)
        axes.set_xlabel("tokens", fontsize=LETTERS)
        axes.set_ylabel("loss", fontsize=LETTERS)
        figure.legend(loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1, fontsize=LETTERS)
        best = fixed(stage.validation_best, 3)
        alt = f"Learning curve of the {name} model: validation loss {fixed(before, 3)} before training, best {best}."
        return Drawn(f"curve-{number}", figure, alt)


def _series(points: Iterable[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    """Return the points that have both tokens and a loss, by tokens."""
    return sorted((tokens, loss) for tokens, loss in points if tokens is not None and loss is not None)


def short_count(value: float) -> str:
    """Return ``12 k``, ``3 M``."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"
