"""Mean total of each arm in each phase of therapy: one line an arm."""

from __future__ import annotations

from matplotlib.figure import Figure

from cbtrain.eval.report.arm_looks import looks_of
from cbtrain.eval.report.course import phases_of
from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import (
    MUTED,
    SMALL,
    WIDTH,
    arm_colour,
    arm_labels,
    arm_mark,
    drawing,
    line_style,
)
from cbtrain.eval.report.formatting import fixed, whole
from cbtrain.eval.report.schema.report import Report

HEIGHT, LEGEND = 2.4, 0.215
"""Inches of the plot, and of a line of the legend."""


def phases_figure(report: Report) -> Drawn | None:
    """Draw the means; None if fewer than two phases have one."""
    by_arm = phases_of(report.analysis)
    phases = list(dict.fromkeys(row.phase for rows in by_arm.values() for row in rows if row.mean is not None))
    if len(phases) < 2:
        return None
    looks, short = looks_of(report), arm_labels(report)
    arms = [arm for arm in report.arms if any(row.mean is not None for row in by_arm.get(arm.name, ()))]
    with drawing():
        legend = LEGEND * len(arms) + 0.1
        height = HEIGHT + legend
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((0.11, 0.34 / height, 0.87, (HEIGHT - 0.64) / height))
        axes.grid(axis="y")
        for index, arm in enumerate(arms, start=1):
            means = {row.phase: row.mean for row in by_arm[arm.name] if row.mean is not None}
            places = [phases.index(phase) for phase in means]
            colour, values = arm_colour(looks[arm.name]), list(means.values())
            axes.plot(places, values, color=colour, linewidth=1.4, linestyle=line_style(looks[arm.name]), zorder=2)
            mark = arm_mark(looks[arm.name])
            axes.plot(places, values, **mark, markersize=7, zorder=3, label=short[arm.name], gid=f"arm-{index}")
        axes.set_xticks(range(len(phases)), phases)
        axes.set_xlim(-0.35, len(phases) - 0.65)
        axes.tick_params(length=0, labelsize=SMALL - 0.6)
        axes.margins(y=0.12)
        axes.set_title("mean total", loc="left", fontsize=SMALL, color=MUTED)
        figure.legend(loc="upper left", bbox_to_anchor=(0, 1), ncols=1, handlelength=1.2, borderaxespad=0.1)
        return Drawn("phases", figure, _alt(report, phases))


def _alt(report: Report, phases: list[str]) -> str:
    by_arm = phases_of(report.analysis)
    parts = []
    for arm in report.arms:
        rows = [row for row in by_arm.get(arm.name, ()) if row.phase in phases]
        texts = [f"{row.phase} {fixed(row.mean)} (n {whole(row.n)})" for row in rows]
        parts.append(f"{arm.label}: {', '.join(texts) or 'no score'}.")
    return f"Mean total by phase of therapy. {' '.join(parts)}"
