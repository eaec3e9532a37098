"""Totals by arm: the sessions as dots under a density, and the patients' means joined from arm to arm."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory
from scipy import stats

from cbtrain.eval.analysis.rounding import alike, at_least
from cbtrain.eval.report.arm_looks import ArmLook, looks_of
from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import (
    INK,
    MUTED,
    PAPER,
    WIDTH,
    arm_colour,
    arm_labels,
    arm_mark,
    drawing,
    label,
    line_style,
    scatter_heights,
)
from cbtrain.eval.report.formatting import fixed
from cbtrain.eval.report.schema.report import Report, ReportScale

TITLE, CLOUD, DOTS, GAP = 0.2, 0.34, 0.2, 0.16  # inches
LEAST = 8
"""Fewest sessions for a density: with fewer it would show the method more than the scores."""


@dataclass
class Totals:
    """One arm's totals; ``short``: its label as the figure has room for it; ``patients``: the totals of each patient's
    sessions."""

    label: str
    short: str
    index: int
    look: ArmLook
    values: list[float] = field(default_factory=list)
    patients: dict[str, list[float]] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        return {patient: statistics.fmean(totals) for patient, totals in self.patients.items()}

    def spoken(self) -> str:
        """Return ``34.5 ± 7.2, n 100``."""
        spread = f" ± {fixed(statistics.stdev(self.values))}" if len(self.values) > 1 else ""
        return f"{fixed(statistics.fmean(self.values))}{spread}, n {len(self.values)}" if self.values else "no score"


def totals_of(report: Report) -> list[Totals]:
    """Return every arm in the report's order, also those without a total."""
    short, looks = arm_labels(report), looks_of(report)
    arms = {
        arm.name: Totals(arm.label, short[arm.name], index, looks[arm.name]) for index, arm in enumerate(report.arms)
    }
    for session in report.sessions:
        if session.arm in arms and session.total is not None:
            arms[session.arm].values.append(session.total)
            arms[session.arm].patients.setdefault(session.patient, []).append(session.total)
    return list(arms.values())


def scores_figure(report: Report) -> Drawn | None:
    """Draw the figure; None if no session has a total."""
    arms, scale = totals_of(report), report.scale
    if not any(arm.values for arm in arms):
        return None
    with drawing():
        figure = Figure(figsize=(WIDTH, 1))
        axes = figure.add_axes((0, 0, 1, 1))
        baselines, depth = [], 0.0
        for arm in arms:
            name = label(arm.short, 24, 2)
            title = TITLE * (name.count("\n") + 1)
            page = blended_transform_factory(figure.transFigure, axes.transData)
            box = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5}
            above: dict[str, Any] = {"transform": page, "va": "top", "bbox": box, "zorder": 5}
            axes.text(0.02, depth, name, linespacing=1.15, **above)
            axes.text(0.98, depth, arm.spoken(), ha="right", color=MUTED, **above)
            baseline = depth + title + CLOUD
            _cloud(axes, baseline, arm, scale)
            baselines.append(baseline)
            depth = baseline + DOTS + GAP
        _join(axes, baselines, arms)
        _frame(figure, axes, depth - GAP + 0.03, scale, [value for arm in arms for value in arm.values])
        return Drawn("scores", figure, _alt(report, arms, scale))


def _cloud(axes: Axes, baseline: float, arm: Totals, scale: ReportScale) -> None:
    colour, mark = arm_colour(arm.look), arm_mark(arm.look)
    axes.axhline(baseline, color=colour, linewidth=0.8, zorder=1)
    if not arm.values:
        return
    if len(arm.values) >= LEAST and not alike(np.array(arm.values)):
        shape = stats.gaussian_kde(arm.values)
        spread = 3 * float(shape.factor) * statistics.stdev(arm.values)
        low, high = min(arm.values) - spread, max(arm.values) + spread
        low = low if scale.total_low is None or scale.total_low > min(arm.values) else max(low, scale.total_low)
        high = high if scale.total_high is None or scale.total_high < max(arm.values) else min(high, scale.total_high)
        where = np.linspace(low, high, 160)
        density = shape(where)
        top = baseline - 0.92 * CLOUD * density / density.max()
        axes.fill_between(where, baseline, top, color=colour, alpha=0.16, linewidth=0, zorder=1)
        axes.plot(where, top, color=colour, linewidth=1.2, linestyle=line_style(arm.look), zorder=2)
    heights = [baseline + DOTS * (0.62 + 0.7 * up) for up in scatter_heights(len(arm.values))]
    alpha = 0.75 if len(arm.values) < 60 else 0.45
    dots = {"marker": mark["marker"], "s": 9, "color": colour, "alpha": alpha, "linewidths": 0}
    axes.scatter(arm.values, heights, **dots, zorder=2, gid=f"sessions-{arm.index + 1}")
    means = arm.means()
    axes.scatter(
        list(means.values()), [baseline] * len(means), s=15, color=INK, edgecolors=PAPER, linewidths=0.5, zorder=4
    )
    axes.plot([statistics.fmean(arm.values)], [baseline], **mark, markersize=9.5, zorder=3.5, clip_on=False)


def _join(axes: Axes, baselines: list[float], arms: list[Totals]) -> None:
    """Draw a line for each patient through their means; an arm without a score of theirs is left out."""
    means = [arm.means() for arm in arms]
    patients = dict.fromkeys(patient for arm_means in means for patient in arm_means)
    faint = 0.55 if len(patients) <= 12 else 0.22
    for patient in patients:
        points = [
            (arm_means[patient], baseline)
            for arm_means, baseline in zip(means, baselines, strict=True)
            if patient in arm_means
        ]
        if len(points) > 1:
            axes.plot(*zip(*points, strict=True), color=INK, alpha=faint, linewidth=0.9, zorder=3)


def _frame(figure: Figure, axes: Axes, depth: float, scale: ReportScale, values: list[float]) -> None:
    above, below = (0.28 if scale.cutoff is not None else 0.05), 0.5
    height = depth + above + below
    figure.set_size_inches(WIDTH, height)
    axes.set_position((0.02, below / height, 0.96, depth / height))
    axes.set_ylim(depth, 0)
    low, high = scale.total_low, scale.total_high
    # A value outside its scale is a fault to be seen, not to be cut off: then the axis follows the data.
    if low is not None and high is not None and low < high and low <= min(values) and max(values) <= high:
        axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        parts = next((parts for parts in (6, 5, 4, 3) if ((high - low) / parts).is_integer()), 6)
        ticks = [low + (high - low) * part / parts for part in range(parts + 1)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    else:
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    if scale.cutoff is not None:
        axes.axvline(scale.cutoff, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        ends = axes.get_xlim()
        side = "right" if scale.cutoff > sum(ends) / 2 else "left"
        text = f"competent from {scale.cutoff:g}"
        axes.text(scale.cutoff, -0.05, text, ha=side, va="bottom", color=MUTED)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("total score")


def _alt(report: Report, arms: list[Totals], scale: ReportScale) -> str:
    parts = []
    for arm in arms:
        text = f"{arm.label}: {arm.spoken()} sessions" if arm.values else f"{arm.label}: no session has a total"
        if arm.values:
            text += f" of {len(arm.patients)} patients, from {fixed(min(arm.values))} to {fixed(max(arm.values))}"
            if scale.cutoff is not None:
                at = int(at_least(np.array(arm.values), scale.cutoff).sum())
                text += f", {at} at or above the cut-off of {scale.cutoff:g}"
        parts.append(text + ".")
    return "Total scores by therapist, mean ± SD. " + " ".join(parts) + f" Rated by {report.rater.credit}."
