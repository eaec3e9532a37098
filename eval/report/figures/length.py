"""Length and endings of sessions, by arm."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from cbtrain.eval.report.arm_looks import ArmLook, looks_of
from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import (
    INK,
    MUTED,
    PAPER,
    SMALL,
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
from cbtrain.eval.report.notable import row_of
from cbtrain.eval.report.schema.analysis import ArmCompletionRow
from cbtrain.eval.report.schema.report import Report

TITLE, BAND, GAP = 0.2, 0.26, 0.1  # inches
LOW_BAND, LOW_GAP, MANY_ARMS = 0.2, 0.07, 6
"""With more arms than this, a band is lower."""

PATTERNS = ("", "////", "....", "xxxx", "----", "\\\\\\\\", "oo", "++")
SHADES = (0.12, 0.3, 0.06, 0.2, 0.04, 0.38, 0.1, 0.25)


@dataclass(frozen=True, slots=True)
class Rows:
    """One row an arm: its title above a band. ``band`` and ``gap`` in inches."""

    band: float
    gap: float
    titles: list[str]

    @property
    def depth(self) -> float:
        """Return the height of all rows in inches."""
        lines = sum(title.count("\n") + 1 for title in self.titles)
        return TITLE * lines + (self.band + self.gap) * len(self.titles)


def turns_of(report: Report) -> dict[str, list[int]]:
    """Return the number of turns of each session that has any, by arm."""
    turns: dict[str, list[int]] = {arm.name: [] for arm in report.arms}
    for session in report.sessions:
        if session.turns and session.arm in turns:
            turns[session.arm].append(len(session.turns))
    return turns


def endings_of(report: Report) -> dict[str, dict[str, int]]:
    """Return the number of sessions with each ending, by arm: from the analysis, else from the arms, else counted."""
    endings = {}
    for arm in report.arms:
        completed = row_of(report.analysis.completion.arms, arm.name, "name") or ArmCompletionRow()
        counts = completed.endings or arm.endings
        positive_counts = {name: int(count) for name, count in counts.items() if count is not None and count > 0}
        endings[arm.name] = positive_counts or dict(
            Counter(session.ending for session in report.sessions if session.arm == arm.name and session.ending)
        )
    return endings


def length_figure(report: Report) -> Drawn | None:
    """Draw the figure; None if neither turns nor endings are known."""
    turns, endings, arms = turns_of(report), endings_of(report), report.arms
    kinds = [
        name for name, _ in Counter({k: n for counts in endings.values() for k, n in counts.items()}).most_common()
    ]
    if not any(turns.values()) and not kinds:
        return None
    with drawing():
        short, looks_by_arm = arm_labels(report), looks_of(report)
        titles = [label(short[arm.name], 24, 2) for arm in arms]
        rows = Rows(*((BAND, GAP) if len(arms) <= MANY_ARMS else (LOW_BAND, LOW_GAP)), titles)
        depth = rows.depth
        legend = 0.21 * len(kinds) + 0.1
        heights = [depth if any(turns.values()) else 0, depth if kinds else 0]
        height = sum(heights) + 0.62 * bool(heights[0]) + (0.6 + legend) * bool(heights[1])
        figure = Figure(figsize=(WIDTH, height))
        bottom = height
        if heights[0]:
            bottom -= heights[0] + 0.05
            axes = figure.add_axes((0.03, bottom / height, 0.94, heights[0] / height))
            arm_looks = [looks_by_arm[arm.name] for arm in arms]
            _turns(figure, axes, rows, [turns[arm.name] for arm in arms], arm_looks)
            bottom -= 0.57
        if heights[1]:
            bottom -= heights[1] + 0.05
            axes = figure.add_axes((0.03, bottom / height, 0.94, heights[1] / height))
            looks = {kind: _pattern(index) for index, kind in enumerate(kinds)}
            _endings(figure, axes, rows, [endings[arm.name] for arm in arms], looks)
            handles = [
                Rectangle((0, 0), 1, 1, label=label(_named(kind), 40, 1), **look) for kind, look in looks.items()
            ]
            corner = (0.03, (bottom - 0.48) / height)
            figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, borderpad=0, handlelength=1.8)
        return Drawn("length", figure, _alt(report, turns, endings))


def _turns(figure: Figure, axes: Axes, rows: Rows, turns: list[list[int]], looks: list[ArmLook]) -> None:
    top, band = 0.0, rows.band
    for title, values, look in zip(rows.titles, turns, looks, strict=True):
        numbers = f"median {statistics.median(values):g}, n {len(values)}" if values else "no turns recorded"
        top = _title(figure, axes, top, title, numbers)
        middle = top + band / 2
        if values:
            colour, marker = arm_colour(look), arm_mark(look)["marker"]
            heights = [middle + 0.75 * band * up for up in scatter_heights(len(values))]
            alpha = 0.75 if len(values) < 60 else 0.45
            axes.scatter(values, heights, marker=marker, s=9, color=colour, alpha=alpha, linewidths=0, zorder=2)
            # Quartiles need a few sessions.
            if len(values) > 3:
                low, centre, high = statistics.quantiles(values, n=4, method="inclusive")
                box: dict[str, Any] = {"facecolor": "none", "edgecolor": colour, "linewidth": 1.2, "zorder": 3}
                axes.add_patch(Rectangle((low, top), high - low, band, linestyle=line_style(look), **box))
                axes.plot([centre, centre], [top, top + band], color=colour, linewidth=2.4, zorder=3)
        top += band + rows.gap
    axes.set_ylim(rows.depth, 0)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="x")
    _plain(axes, "turns of a session (box: quartiles)")


def _endings(figure: Figure, axes: Axes, rows: Rows, endings: list[dict[str, int]], looks: dict[str, Any]) -> None:
    top, band = 0.0, rows.band
    for title, counts in zip(rows.titles, endings, strict=True):
        total = sum(counts.values())
        top = _title(figure, axes, top, title, f"{total} sessions" if total else "endings not recorded")
        left = 0.0
        for kind, look in looks.items():
            if not (count := counts.get(kind, 0)):
                continue
            share = 100 * count / total
            axes.add_patch(Rectangle((left, top), share, band, zorder=2, **look))
            if share >= 7:
                box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.2}
                middle = left + share / 2, top + band / 2
                axes.text(*middle, f"{count}", ha="center", va="center_baseline", fontsize=SMALL, bbox=box, zorder=3)
            left += share
        top += band + rows.gap
    axes.set_ylim(rows.depth, 0)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    _plain(axes, "endings, % of sessions (counts in the bars)")


def _title(figure: Figure, axes: Axes, top: float, title: str, numbers: str) -> float:
    page = blended_transform_factory(figure.transFigure, axes.transData)
    box = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5}
    axes.text(0.03, top, title, transform=page, va="top", linespacing=1.15, fontsize=SMALL, bbox=box, zorder=2)
    looks: dict[str, Any] = {"va": "top", "ha": "right", "color": MUTED, "fontsize": SMALL, "bbox": box, "zorder": 2}
    axes.text(0.97, top, numbers, transform=page, **looks)
    return top + TITLE * (title.count("\n") + 1)


def _plain(axes: Axes, measure: str) -> None:
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(measure)


def _pattern(index: int) -> dict[str, Any]:
    """Endings differ by pattern and by shade; colours are the arms'."""
    shade = SHADES[index % len(SHADES)]
    return {"facecolor": (INK, shade), "edgecolor": MUTED, "hatch": PATTERNS[index % len(PATTERNS)], "linewidth": 0.8}


def _named(kind: str) -> str:
    return kind.replace("_", " ") or "not recorded"


def _alt(report: Report, turns: dict[str, list[int]], endings: dict[str, dict[str, int]]) -> str:
    parts = []
    for arm in report.arms:
        lengths = "turns not recorded"
        if counts := turns[arm.name]:
            lengths = f"{fixed(statistics.fmean(counts), 1)} turns on average, from {min(counts)} to {max(counts)}"
        listed = ", ".join(f"{_named(kind)} {count}" for kind, count in endings[arm.name].items())
        parts.append(f"{arm.label}: {lengths}; endings: {listed or 'not recorded'}.")
    return "Length and endings of sessions by therapist. " + " ".join(parts)
