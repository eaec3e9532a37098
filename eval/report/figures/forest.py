"""Forest plot: every contrast with its interval, the patients' own differences, and other methods, on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Transform, blended_transform_factory

from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import (
    INK,
    LINE,
    MUTED,
    PAPER,
    SMALL,
    WIDTH,
    contrast_label,
    drawing,
    label,
    scatter_heights,
)
from cbtrain.eval.report.formatting import fixed, p_value, span
from cbtrain.eval.report.notable import MANY, Band, Finding, families_of, findings_of
from cbtrain.eval.report.schema.report import Report

ROW, LINE_OF_TEXT, GAP = 0.175, 0.19, 0.14  # inches
LEFT = 1.1
LETTERS = 42
"""Letters that a name and its numbers have side by side."""

GROUND = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5}
"""Names are drawn across the plot, whose lines must not run through them."""

MANY_PATIENTS = 12
DENSE = 16
"""With more contrasts than this, patients are drawn behind the interval."""

MARKS = {"mixed model": "D", "ln(turns)": "^", "matched": "v"}


def forest_figure(report: Report) -> Drawn | None:
    """Draw the plot; None if no contrast has an estimate."""
    findings = findings_of(report.analysis)
    if not any(finding.estimate is not None for finding in findings):
        return None
    families = families_of(findings)
    with drawing():
        figure = Figure(figsize=(WIDTH, 1))
        axes = figure.add_axes((0, 0, 1, 1))
        page = blended_transform_factory(figure.transFigure, axes.transData)
        depth, order = 0.0, 0
        dense = len(findings) > DENSE
        gap = GAP / 2 if dense else GAP
        for family, members in families:
            if len(families) > 1:
                looks: dict[str, Any] = {
                    "va": "center",
                    "fontweight": "bold",
                    "fontsize": SMALL,
                    "bbox": GROUND,
                    "zorder": 3,
                }
                axes.text(0.01, depth + 0.1, family, transform=page, **looks)
                depth += 0.27
            for finding in members:
                order += 1
                bands = finding.bands if len(findings) <= MANY else ()
                row = Row(finding, contrast_label(report, finding.id), order, bands, dense)
                depth = _draw(axes, page, depth, row) + gap
        depth -= gap - 0.04
        _frame(figure, axes, depth, top=len(findings) > 2)
        return Drawn("forest", figure, _alt(findings))


def _frame(figure: Figure, axes: Axes, depth: float, top: bool) -> None:
    """Set the figure's size so that a unit of height in ``axes`` is an inch."""
    above, below = (0.26 if top else 0.04), 0.5
    height = depth + above + below
    figure.set_size_inches(WIDTH, height)
    axes.set_position((LEFT / WIDTH, below / height, 1 - (LEFT + 0.1) / WIDTH, depth / height))
    axes.set_ylim(depth, 0)
    axes.autoscale(axis="x")
    axes.margins(x=0.04)
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    axes.grid(axis="x")
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: fixed(value, 0 if value == int(value) else 1, True)))
    axes.tick_params(axis="x", length=0, labeltop=top)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("difference in points of the total")


@dataclass(frozen=True, slots=True)
class Row:
    """One contrast as it is drawn: ``name`` with short names of arms, ``order`` from 1 on, the ``bands`` of other
    methods, and whether the rows are ``dense``."""

    finding: Finding
    name: str
    order: int
    bands: Sequence[Band]
    dense: bool


def _draw(axes: Axes, page: Transform, depth: float, row: Row) -> float:
    """Draw a contrast below ``depth`` and return the depth of its end."""
    finding, dense = row.finding, row.dense
    name = label(row.name, max(LETTERS - len(numbers(finding)), 12), 4)
    axes.text(0.01, depth, name, transform=page, va="top", linespacing=1.15, bbox=GROUND, zorder=3)
    axes.text(0.99, depth, numbers(finding), transform=page, va="top", ha="right", bbox=GROUND, zorder=3)
    depth += LINE_OF_TEXT * (name.count("\n") + 1) + 0.03
    if finding.estimate is None:
        why = label("; ".join(finding.notes) or "no estimate", 44, 3)
        axes.text(0.03, depth, why, transform=page, va="top", color=MUTED, fontsize=SMALL, fontstyle="italic")
        return depth + LINE_OF_TEXT * (why.count("\n") + 1)
    y = depth + ROW / 2
    if not dense:
        _name_row(axes, page, y, "t interval", INK)
    if finding.low is not None and finding.high is not None:
        axes.plot([finding.low, finding.high], [y, y], color=INK, linewidth=2.6, solid_capstyle="butt", zorder=4)
    mark: dict[str, Any] = {"marker": "s", "markersize": 7.5, "mfc": INK, "mec": INK, "ls": ""}
    axes.plot([finding.estimate], [y], **mark, zorder=5, gid=f"estimate-{row.order}")
    if finding.patients and dense:
        _patients(axes, y, ROW, finding)
    depth += ROW + 0.02
    if finding.patients and not dense:
        height = ROW if len(finding.patients) > MANY_PATIENTS else 0.13
        y = depth + height / 2
        _name_row(axes, page, y, "patients", MUTED)
        _patients(axes, y, height, finding)
        depth += height + 0.05
    for band in row.bands:
        y = depth + ROW / 2
        _name_row(axes, page, y, band.name, MUTED)
        dashed = (0, (3, 2)) if band.name == "worst case" else "-"
        axes.plot([band.low, band.high], [y, y], color=MUTED, linewidth=1.2, linestyle=dashed, zorder=4)
        if band.name in ("bootstrap", "worst case"):
            axes.plot([band.low, band.high], [y, y], color=MUTED, marker="|", markersize=6, ls="", zorder=4)
        if band.estimate is not None:
            axes.plot([band.estimate], [y], marker=MARKS.get(band.name, "o"), markersize=4.5, color=MUTED, zorder=5)
        depth += ROW
    return depth


def _patients(axes: Axes, y: float, height: float, finding: Finding) -> None:
    """Draw a dot for each patient's difference, around ``y``."""
    values, many = list(finding.patients.values()), len(finding.patients) > MANY_PATIENTS
    heights = [y + (0.8 if many else 0.35) * height * up for up in scatter_heights(len(values))]
    looks: dict[str, Any] = {"s": 11, "color": MUTED, "alpha": 0.6 if many else 0.85, "linewidths": 0}
    axes.scatter(values, heights, **looks, zorder=3)


def _name_row(axes: Axes, page: Transform, y: float, name: str, colour: str) -> None:
    axes.text(0.03, y, name, transform=page, va="center", color=colour, fontsize=SMALL)
    axes.axhline(y, color=LINE, linewidth=0.5, zorder=0)


def numbers(finding: Finding) -> str:
    """Return ``+11.2 [6.1, 16.3]``."""
    if finding.low is None or finding.high is None:
        return fixed(finding.estimate, signed=True)
    return f"{fixed(finding.estimate, signed=True)} [{fixed(finding.low)}, {fixed(finding.high)}]"


def _alt(findings: list[Finding]) -> str:
    parts = []
    for finding in findings:
        if finding.estimate is None:
            parts.append(f"{finding.id}: no estimate.")
            continue
        text = f"{finding.id}: {fixed(finding.estimate, signed=True)} points"
        if finding.low is not None:
            text += f", interval {span(finding.low, finding.high)}"
        if finding.patients:
            text += f"; patients from {span(min(finding.patients.values()), max(finding.patients.values()))}"
        if finding.row.p_adjusted is not None:
            text += f"; p after Holm {p_value(finding.row.p_adjusted)}"
        parts.append(text + ".")
    return "Forest plot of differences in points of the total score. " + " ".join(parts)
