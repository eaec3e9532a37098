"""Forest of the main difference by subgroup, and the patients' own differences with their names."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Transform, blended_transform_factory

from cbtrain.eval.report.course import main_contrast, main_subgroups
from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import (
    INK,
    LINE,
    MUTED,
    SMALL,
    WIDTH,
    contrast_label,
    drawing,
    label,
    short_labels,
)
from cbtrain.eval.report.formatting import fixed, span, whole
from cbtrain.eval.report.schema.course import SubgroupRow
from cbtrain.eval.report.schema.report import Report

ROW, HEAD, GAP = 0.2, 0.26, 0.1  # inches
LEFT, RIGHT = 1.42, 1.12
"""Inches for the names of levels or patients, and for numbers."""

NAME = 19
"""Letters that a name has room for."""

MOST_PATIENTS = 60
"""With more patients the figure would be longer than a page; the table has them."""


def subgroups_figure(report: Report) -> Drawn | None:
    """Draw the main difference by the levels of each factor; None if no level has an estimate."""
    groups = main_subgroups(report.analysis)
    if not any(row.estimate is not None for group in groups for row in group.rows):
        return None
    with drawing():
        figure, axes, page = _started()
        title = label(contrast_label(report, groups[0].contrast), 44, 2)
        axes.text(0.01, 0, title, transform=page, va="top", linespacing=1.15)
        top = depth = HEAD + 0.19 * title.count("\n")
        order = 0
        for group in groups:
            axes.text(0.01, depth, group.factor.capitalize(), transform=page, va="top", color=MUTED, fontsize=SMALL)
            depth += HEAD - 0.04
            for row in group.rows:
                order += 1
                _draw_row(axes, page, depth + ROW / 2, row, order)
                depth += ROW
            depth += GAP
        _frame(figure, axes, top, depth - GAP + 0.04)
        return Drawn("subgroups", figure, _alt_of_subgroups(groups[0].contrast, [r for g in groups for r in g.rows]))


def patients_figure(report: Report) -> Drawn | None:
    """Draw each patient's mean main difference, named, from the lowest to the highest; None without two patients, or
    with more than :data:`MOST_PATIENTS`."""
    contrast = main_contrast(report.analysis)
    names = {patient.id: patient.name or patient.id for patient in report.patients}
    known = {id_: value for id_, value in contrast.patients.items() if value is not None} if contrast else {}
    if contrast is None or not 2 <= len(known) <= MOST_PATIENTS or not names:
        return None
    ordered = sorted(known, key=lambda id_: (known[id_], id_))
    short = short_labels([names.get(id_, id_) for id_ in ordered], NAME)
    with drawing():
        figure, axes, page = _started()
        title = label(contrast_label(report, contrast.id), 44, 2)
        axes.text(0.01, 0, title, transform=page, va="top", linespacing=1.15)
        top = depth = HEAD + 0.19 * title.count("\n")
        for name, id_ in zip(short, ordered, strict=True):
            y = depth + ROW / 2
            axes.text(0.01, y, name, transform=page, va="center", fontsize=SMALL)
            axes.text(0.99, y, fixed(known[id_], signed=True), transform=page, va="center", ha="right", fontsize=SMALL)
            axes.plot([0, known[id_]], [y, y], color=LINE, linewidth=1.6, zorder=2)
            depth += ROW
        heights = [top + ROW * (place + 0.5) for place in range(len(ordered))]
        axes.scatter([known[id_] for id_ in ordered], heights, s=22, color=INK, linewidths=0, zorder=3, gid="patients")
        if contrast.ci_low is not None and contrast.ci_high is not None:
            band = [contrast.ci_low, contrast.ci_high]
            axes.fill_between(band, top, depth, color=LINE, alpha=0.55, linewidth=0, zorder=0)
        _frame(figure, axes, top, depth + 0.04)
        listed = ", ".join(f"{names.get(id_, id_)} {fixed(known[id_], signed=True)}" for id_ in ordered)
        alt = f"Mean difference of each patient in points of the total, {contrast.id}: {listed}."
        return Drawn("patients", figure, alt)


def _started() -> tuple[Figure, Axes, Transform]:
    figure = Figure(figsize=(WIDTH, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    return figure, axes, blended_transform_factory(figure.transFigure, axes.transData)


def _draw_row(axes: Axes, page: Transform, y: float, row: SubgroupRow, order: int) -> None:
    """Draw one level: its name, interval and number of patients."""
    name = f"{short_labels([row.level], NAME - 6)[0]} ({whole(row.patients)})"
    axes.text(0.03, y, name, transform=page, va="center", fontsize=SMALL)
    axes.axhline(y, color=LINE, linewidth=0.5, zorder=0)
    if row.estimate is None:
        axes.text(0.99, y, "no pair", transform=page, va="center", ha="right", color=MUTED, fontsize=SMALL)
        return
    if row.ci_low is not None and row.ci_high is not None:
        axes.plot([row.ci_low, row.ci_high], [y, y], color=INK, linewidth=2.2, solid_capstyle="butt", zorder=4)
    hollow = row.ci_low is None
    mark: dict[str, Any] = {"marker": "s", "markersize": 6.5, "mfc": "none" if hollow else INK, "mec": INK, "ls": ""}
    axes.plot([row.estimate], [y], **mark, zorder=5, gid=f"level-{order}")
    axes.text(0.99, y, fixed(row.estimate, signed=True), transform=page, va="center", ha="right", fontsize=SMALL)


def _frame(figure: Figure, axes: Axes, top: float, depth: float) -> None:
    """Set the figure's size so that a unit of height in ``axes`` is an inch; the line at zero begins at ``top``."""
    above, below = 0.04, 0.5
    height = depth + above + below
    figure.set_size_inches(WIDTH, height)
    width = WIDTH - LEFT - RIGHT * 0.55
    axes.set_position((LEFT / WIDTH, below / height, width / WIDTH, depth / height))
    axes.set_ylim(depth, 0)
    axes.autoscale(axis="x")
    axes.margins(x=0.06)
    axes.plot([0, 0], [top, depth], color=INK, linewidth=1, zorder=1)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: fixed(value, 0 if value == int(value) else 1, True)))
    axes.tick_params(axis="x", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("difference in points")


def _alt_of_subgroups(contrast: str, rows: list[SubgroupRow]) -> str:
    parts = []
    for row in rows:
        text = f"{row.factor} {row.level}: {fixed(row.estimate, signed=True)}"
        if row.ci_low is not None:
            text += f", interval {span(row.ci_low, row.ci_high)}"
        parts.append(f"{text}; {whole(row.patients)} patients.")
    return f"Difference by subgroup in points of the total, {contrast}. {' '.join(parts)}"
