"""The plots: scores by patient and by domain, learning curves. Each returns None where there is nothing to draw."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cbtrain.eval.report.payload import patient_name
from cbtrain.eval.report.shape import Report, arms_of, rater_of, rows, scale_of, table, words
from cbtrain.eval.report.svg import ARMS, INK, LINE, MUTED, PAPER, arm_mark, drawing, inline_svg
from cbtrain.eval.report.values import fixed, number

WIDTH, ROW = 4.4, 0.34  # inches; the width is about a phone's, so that text keeps its size there


@dataclass
class Row:
    """One line of a dot plot: per arm a mean, and the single points behind it."""

    label: str
    means: dict[str, float] = field(default_factory=dict)
    points: dict[str, list[float]] = field(default_factory=dict)
    bold: bool = False


def totals_figure(report: Report) -> Markup | None:
    """Every session's total, by patient and arm, with the patients' means joined across arms."""
    found: dict[str, Row] = {}
    for session in rows(report.get("sessions")):
        total = number(session.get("total"))
        if total is not None:
            row = found.setdefault(words(session.get("patient")), Row(patient_name(session)))
            row.points.setdefault(words(session.get("arm")), []).append(total)
    for row in found.values():
        row.means = {arm: sum(points) / len(points) for arm, points in row.points.items()}
    overall = Row("All patients", bold=True)
    for arm in arms_of(report):
        if (mean := number(arm.get("total_mean"))) is not None:
            overall.means[arm["name"]] = mean
    lines = ([overall] if overall.means else []) + list(found.values())
    scale = scale_of(report)
    alt = f"Total score per session and simulated patient. {_spoken(report, overall)} Rated by {rater_of(report)}."
    return _dot_plot(report, lines, "total score", (scale.total_low, scale.total_high), "totals", alt)


def domains_figure(report: Report) -> Markup | None:
    """Mean score by domain and arm."""
    scale, lines = scale_of(report), []
    for domain in scale.domains:
        row = Row(domain.name)
        for arm in arms_of(report):
            if (mean := number(table(arm.get("domains")).get(domain.id))) is not None:
                row.means[arm["name"]] = mean
        if row.means:
            lines.append(row)
    alt = "Mean score by domain. " + " ".join(_spoken(report, row) for row in lines) + f" Rated by {rater_of(report)}."
    return _dot_plot(report, lines, "mean score", (scale.low, scale.high), "domains", alt)


def curve_figure(stage: dict[str, Any], place: int = 0) -> Markup | None:
    """Training and validation loss of one training stage over its tokens; ``place`` tells stages apart."""
    name = words(stage.get("name")) or "model"
    series = {key: _series(stage, f"{key}_loss") for key in ("train", "validation")}
    if not any(series.values()):
        return None
    with drawing():
        figure = Figure(figsize=(3.4, 2.3), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="y")
        looks: dict[str, dict[str, Any]] = {
            "train": {"color": MUTED, "linewidth": 1},
            "validation": {"color": ARMS[1], "linewidth": 1.8, "marker": "o", "markersize": 3.5},
        }
        for key, points in series.items():
            if points:
                axes.plot(*zip(*points, strict=True), label=key, **looks[key])
        before = number(stage.get("validation_before"))
        if before is not None:
            axes.axhline(before, color=ARMS[0], linewidth=1, linestyle=(0, (4, 3)), label="before")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axes.tick_params(labelcolor=MUTED, labelsize=8.5)
        axes.set_xlabel("tokens")
        axes.set_ylabel("loss")
        figure.legend(loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1, fontsize=8.5)
        best = fixed(stage.get("validation_best"), 3)
        alt = f"Learning curve of the {name} model: validation loss {fixed(before, 3)} before training, best {best}."
        return inline_svg(figure, f"curve-{place}", alt)


def _dot_plot(
    report: Report, lines: list[Row], measure: str, limits: tuple[float | None, float | None], name: str, alt: str
) -> Markup | None:
    if not lines:
        return None
    arms = arms_of(report)
    with drawing():
        figure = Figure(figsize=(WIDTH, 0.85 + ROW * len(lines)), layout="constrained")
        axes = figure.subplots()
        for height, row in enumerate(lines):
            _draw_row(axes, height, row, [arm["name"] for arm in arms])
        axes.set_yticks(range(len(lines)), [_label(row.label) for row in lines])
        for tick, row in zip(axes.get_yticklabels(), lines, strict=True):
            tick.set_fontweight("bold" if row.bold else "normal")
        axes.set_ylim(len(lines) - 0.4, -0.6)
        low, high = limits
        values = [value for row in lines for value in (*row.means.values(), *chain.from_iterable(row.points.values()))]
        # A value outside its scale is a fault to be seen, not to be cut off: then the axis follows the data.
        if low is not None and high is not None and low <= min(values) and max(values) <= high and low < high:
            axes.set_xlim(low - 0.02 * (high - low), high)
            axes.set_xticks([low + (high - low) * place / 6 for place in range(7)])
        axes.tick_params(axis="both", length=0, pad=6)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(measure)
        for place, arm in enumerate(arms):
            axes.plot([], [], **_look(place), markersize=6.5, label=_label(arm["label"], 40))
        longest = max((len(arm["label"]) for arm in arms), default=0)
        columns = max(1, min(3, 56 // (longest + 5)))
        figure.legend(loc="outside upper left", ncols=columns, handletextpad=0.2, columnspacing=1.2)
        return inline_svg(figure, name, alt)


def _draw_row(axes: Axes, height: int, row: Row, arms: list[str]) -> None:
    if row.bold:
        axes.axhline(height + 0.5, color=LINE, linewidth=0.8)
    if len(row.means) > 1:
        axes.plot([min(row.means.values()), max(row.means.values())], [height, height], color=INK, alpha=0.45, lw=1.2)
    for place, arm in enumerate(arms):
        side = 0.24 * (2 * place / (len(arms) - 1) - 1) if len(arms) > 1 else 0.0
        points = row.points.get(arm, [])
        axes.scatter(points, [height + side] * len(points), s=9, color=arm_mark(place), alpha=0.55, linewidths=0)
        if arm in row.means:
            size = 8.5 if row.bold else 6.5
            axes.plot(row.means[arm], height, **_look(place), markersize=size, zorder=4, clip_on=False)


def _look(place: int) -> dict[str, Any]:
    """The first arm is hollow, the others are full and differ by shape: colour is never the only mark."""
    fill = PAPER if place == 0 else arm_mark(place)
    shape = "oosDv^"[place % 6]
    return {"marker": shape, "ls": "", "mfc": fill, "mec": arm_mark(place), "mew": 1.6}


def _series(stage: dict[str, Any], key: str) -> list[tuple[float, float]]:
    found = []
    for point in rows(stage.get("curve")):
        tokens, loss = number(point.get("tokens")), number(point.get(key))
        if tokens is not None and loss is not None:
            found.append((tokens, loss))
    return sorted(found)


def _spoken(report: Report, row: Row) -> str:
    means = [f"{arm['label']} {fixed(row.means[arm['name']])}" for arm in arms_of(report) if arm["name"] in row.means]
    return f"{row.label}: {', '.join(means)}." if means else ""


def _label(text: str, width: int = 24) -> str:
    """``text`` on at most two lines."""
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder=" …")) or "(no name)"


def _short(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"
