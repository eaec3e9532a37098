"""Heat map: mean score by domain and arm, and the differences, with those marked that hold after Holm."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import (
    HEAT,
    INK,
    LINE,
    MUTED,
    SMALL,
    arm_labels,
    columns,
    contrast_label,
    drawing,
    label,
)
from cbtrain.eval.report.formatting import GAP, fixed
from cbtrain.eval.report.notable import MANY, row_of, significant
from cbtrain.eval.report.schema.analysis import Analysis, GroupRow, ItemRow
from cbtrain.eval.report.schema.report import Report, ReportScale

CELL, CHANGE, ROW, LETTER = 0.72, 0.84, 0.27, 0.082  # inches
NARROW, MANY_ARMS = 0.52, 6
"""A cell's width in inches with more arms than this."""

LONGEST = 48
"""Letters of a domain's name that are shown."""

STRONGEST = 0.45
"""Opacity of the colour at the scale's top: ink keeps a contrast of 4.5 on it."""


def domain_means(report: Report) -> dict[str, dict[str, float]]:
    """Return mean scores by arm and domain: those of the report's arms, else those of the analysis."""
    means = {}
    for arm in report.arms:
        group = row_of(report.analysis.groups, arm.name, "name") or GroupRow()
        domains = arm.domains or group.items
        means[arm.name] = {name: mean for name, mean in domains.items() if mean is not None}
    return means


def compared(analysis: Analysis) -> list[str]:
    """Return the ids of the contrasts that the analysis has domain by domain."""
    return list(dict.fromkeys(row.contrast for row in analysis.items))


MOST_COLUMNS = 13
"""Of arms and differences together, in a page's table of domains."""


def columns_of(analysis: Analysis) -> list[str]:
    """Return the contrasts of :func:`compared` that get a column: of many, those of the first family, unless these are
    too many to read."""
    contrasts = compared(analysis)
    if len(contrasts) > MANY:
        first = analysis.contrasts[0].family if analysis.contrasts else ""
        members = {row.id for row in analysis.contrasts if row.family == first}
        contrasts = [name for name in contrasts if name in members]
    return contrasts if len(contrasts) <= MANY else []


def columns_that_fit(report: Report) -> list[str]:
    """Return :func:`columns_of` a page: none if they would not fit on paper beside the arms' own columns."""
    contrasts = columns_of(report.analysis)
    return contrasts if len(report.arms) + len(contrasts) <= MOST_COLUMNS else []


def item_difference(analysis: Analysis, contrast: str, domain: str) -> ItemRow:
    """Return the row of one domain in one contrast; empty if the analysis has none."""
    return next((row for row in analysis.items if row.contrast == contrast and row.item == domain), ItemRow())


def heatmap_figure(report: Report) -> Drawn | None:
    """Draw the heat map; None if no domain has a mean. For files only: the page has it as a table."""
    means, scale, arms, contrasts = domain_means(report), report.scale, report.arms, columns_of(report.analysis)
    domains = [domain for domain in scale.domains if any(domain.id in arm_means for arm_means in means.values())]
    if not domains:
        return None
    with drawing():
        names = [label(domain.name, LONGEST, 1) for domain in domains]
        left = 0.25 + LETTER * max(columns(name) for name in names)
        cell, short = (CELL if len(arms) <= MANY_ARMS else NARROW), arm_labels(report)
        right = left + cell * len(arms)
        width = max(right + (0.12 + CHANGE * len(contrasts) if contrasts else 0), 4.6)
        heads = [label(short[arm.name], 20) for arm in arms]
        changes = [label(contrast_label(report, name), 24, 4) for name in contrasts]
        above = 0.15 + 0.085 * max(columns(line) for name in heads + changes for line in name.split("\n"))
        depth = ROW * len(domains)
        height = above + depth + 0.5
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0.5 / height, 1, depth / height))
        axes.set_xlim(0, width)
        axes.set_ylim(depth, 0)
        axes.set_axis_off()
        for row, (domain, name) in enumerate(zip(domains, names, strict=True)):
            axes.text(left - 0.1, ROW * (row + 0.5), name, ha="right", va="center", fontsize=SMALL)
            for column, arm in enumerate(arms):
                corner = (left + cell * column, ROW * row)
                _mean(axes, corner, cell, means[arm.name].get(domain.id), scale)
            for column, contrast in enumerate(contrasts):
                side = right + 0.12 + CHANGE * column
                _difference(axes, side, ROW * row, item_difference(report.analysis, contrast, domain.id))
        for column, name in enumerate(heads):
            _head(axes, left + cell * (column + 0.5), name)
        for column, name in enumerate(changes):
            _head(axes, right + 0.12 + CHANGE * (column + 0.5), name)
        ends = f" from {fixed(scale.low, 0)} to {fixed(scale.high, 0)}" if scale.low is not None else ""
        foot = f"Mean score{ends}; the stronger the colour, the higher."
        star = "Framed and *: p < .05 after Holm over the domains." if contrasts else ""
        axes.text(0.08, depth + 0.1, "\n".join(filter(None, (foot, star))), va="top", color=MUTED, fontsize=SMALL)
        return Drawn("heatmap", figure, _alt(report, means), on_page=False)


def _head(axes: Axes, x: float, name: str) -> None:
    axes.text(x, -0.06, name, ha="center", va="bottom", rotation=90, fontsize=SMALL, linespacing=1.3)


def _mean(axes: Axes, corner: tuple[float, float], width: float, mean: float | None, scale: ReportScale) -> None:
    left, top = corner
    if mean is not None and scale.low is not None and scale.high is not None and scale.low < scale.high:
        strength = STRONGEST * min(max((mean - scale.low) / (scale.high - scale.low), 0), 1)
        axes.add_patch(Rectangle(corner, width, ROW, facecolor=HEAT, alpha=strength, linewidth=0))
    axes.add_patch(Rectangle(corner, width, ROW, facecolor="none", edgecolor=LINE, linewidth=0.5))
    colour = MUTED if mean is None else INK
    axes.text(left + width / 2, top + ROW / 2, fixed(mean, 2), ha="center", va="center", color=colour, fontsize=SMALL)


def _difference(axes: Axes, left: float, top: float, row: ItemRow) -> None:
    text, holds = fixed(row.estimate, 2, signed=True), significant(row)
    if holds:
        frame: dict[str, Any] = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.1, "zorder": 3}
        axes.add_patch(Rectangle((left + 0.04, top + 0.025), CHANGE - 0.08, ROW - 0.05, **frame))
    looks: dict[str, Any] = {
        "color": MUTED if text == GAP else INK,
        "fontweight": "bold" if holds else "normal",
        "fontsize": SMALL,
    }
    text += "*" if holds else ""
    axes.text(left + CHANGE / 2, top + ROW / 2, text, ha="center", va="center", **looks)


def _alt(report: Report, means: dict[str, dict[str, float]]) -> str:
    parts = []
    for domain in report.scale.domains:
        scores = [f"{arm.label} {fixed(means[arm.name].get(domain.id), 2)}" for arm in report.arms]
        for contrast in columns_of(report.analysis):
            row = item_difference(report.analysis, contrast, domain.id)
            holds = ", p < .05 after Holm" if significant(row) else ""
            scores.append(f"{contrast} {fixed(row.estimate, 2, signed=True)}{holds}")
        parts.append(f"{domain.name}: {'; '.join(scores)}.")
    return "Mean score by domain and therapist. " + " ".join(parts) + f" Rated by {report.rater.credit}."
