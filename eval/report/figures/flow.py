"""Participant flow by arm: a row for each arm, a column for each stage, a bar for the share of the planned sessions."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cbtrain.eval.report.arm_looks import looks_of
from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import (
    INK,
    LINE,
    MUTED,
    SMALL,
    arm_colour,
    arm_labels,
    arm_mark,
    drawing,
    label,
)
from cbtrain.eval.report.flow import STAGES, Stage, flow_of, stage_texts, stages_of
from cbtrain.eval.report.formatting import whole
from cbtrain.eval.report.schema.report import Report

LEFT, COLUMN, TEXT_LINE, BAR, GAP = 2.15, 1.42, 0.17, 0.06, 0.16  # inches
LETTERS = 17
"""Letters of a note that fit into a column."""

NOTE = 8.6


def flow_figure(report: Report) -> Drawn | None:
    """Draw the flow; None without arms whose planned or rated sessions are known. For files only: the page has it as
    a table."""
    flows = {arm.name: flow_of(report, arm) for arm in report.arms}
    if not any(flow.planned is not None or flow.rated is not None for flow in flows.values()):
        return None
    short, looks = arm_labels(report), looks_of(report)
    with drawing():
        width = LEFT + COLUMN * len(STAGES)
        figure = Figure(figsize=(width, 1))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for column, name in enumerate(STAGES):
            arrow = "→ " if column and column != STAGES.index("Failed") else ""
            axes.text(LEFT + COLUMN * column, 0, arrow + name, va="top", color=MUTED, fontsize=SMALL)
        depth = 0.26
        for arm in report.arms:
            axes.plot([0.05, width - 0.05], [depth, depth], color=LINE, linewidth=0.8)
            top = depth + 0.08
            axes.plot([0.14], [top + 0.09], markersize=7.5, **arm_mark(looks[arm.name]))
            name = label(short[arm.name], 19, 3)
            axes.text(0.28, top, name, va="top", linespacing=1.15, fontsize=SMALL)
            ends = [top + TEXT_LINE * (name.count("\n") + 1)]
            for column, stage in enumerate(stages_of(flows[arm.name])):
                ends.append(_stage(axes, LEFT + COLUMN * column, top, stage, arm_colour(looks[arm.name])))
            depth = max(ends) + GAP
        height = depth + 0.02
        figure.set_size_inches(width, height + 0.06)
        axes.set_position((0, 0, 1, height / (height + 0.06)))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        return Drawn("flow", figure, _alt(report), on_page=False)


def _stage(axes: Axes, left: float, top: float, stage: Stage, colour: str) -> float:
    """Draw count, bar and notes of one stage below ``top``, and return the depth of its end."""
    axes.text(left, top, whole(stage.count), va="top", color=INK if stage.count is not None else MUTED, fontsize=SMALL)
    depth = top + 0.21
    if stage.share is not None:
        bar: dict[str, Any] = {"height": BAR, "linewidth": 0}
        axes.add_patch(Rectangle((left, depth), COLUMN - 0.2, facecolor=LINE, **bar))
        axes.add_patch(Rectangle((left, depth), (COLUMN - 0.2) * stage.share, facecolor=colour, **bar))
    depth += BAR + 0.04
    for note in stage.notes:
        text = label(note, LETTERS, 3)
        axes.text(left, depth, text, va="top", color=MUTED, fontsize=NOTE, linespacing=1.15)
        depth += 0.145 * (text.count("\n") + 1)
    return depth


def _alt(report: Report) -> str:
    parts = []
    for arm in report.arms:
        texts = zip(STAGES, stage_texts(flow_of(report, arm)), strict=True)
        parts.append(f"{arm.label}: {'; '.join(f'{name.lower()} {text}' for name, text in texts)}.")
    return "Sessions of each therapist from the plan to the contrast. " + " ".join(parts)
