"""Heat map: mean score by domain and arm, and the differences beside it, those that stand after Holm marked."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.style import HEAT, INK, LINE, MUTED, SMALL, columns, drawing, label
from cbtrain.eval.report.formatting import GAP, fixed, number
from cbtrain.eval.report.notable import MANY, analysis_of, row_of, significant
from cbtrain.eval.report.shape import Report, Scale, arms_of, rater_of, rows, scale_of, table, words

CELL, CHANGE, ROW, LETTER = 0.72, 0.84, 0.27, 0.082  # inches
LONGEST = 48
"""Letters of a domain's name that are shown."""

STRONGEST = 0.45
"""Opacity of the colour at the scale's top: ink keeps a contrast of 4.5 on it."""


def domain_means(report: Report) -> dict[str, dict[str, float]]:
    """By arm and domain: what the report says of the arm, else the analysis' mean of that item."""
    groups = analysis_of(report).get("groups")
    found = {}
    for arm in arms_of(report):
        own = table(arm.get("domains")) or table(row_of(groups, arm["name"], "name").get("items"))
        means = {name: number(value) for name, value in own.items()}
        found[arm["name"]] = {name: mean for name, mean in means.items() if mean is not None}
    return found


def compared(report: Report) -> list[str]:
    """Ids of the contrasts that the analysis has item by item."""
    return list(dict.fromkeys(words(row.get("contrast")) for row in rows(analysis_of(report).get("items"))))


def columns_of(report: Report) -> list[str]:
    """Those of :func:`compared` that have a column beside the means; none where there are too many to read."""
    found = compared(report)
    return found if len(found) <= MANY else []


def item_difference(report: Report, contrast: str, domain: str) -> dict[str, Any]:
    """The analysis' row of one domain in one contrast; empty where it has none."""
    own = [row for row in rows(analysis_of(report).get("items")) if words(row.get("contrast")) == contrast]
    return row_of(own, domain, "item")


def heatmap_figure(report: Report) -> Drawn | None:
    """None where no domain has a mean. For files only: the page has it as a table."""
    means, scale, arms, contrasts = domain_means(report), scale_of(report), arms_of(report), columns_of(report)
    domains = [domain for domain in scale.domains if any(domain.id in own for own in means.values())]
    if not domains:
        return None
    with drawing():
        names = [label(domain.name, LONGEST, 1) for domain in domains]
        left = 0.25 + LETTER * max(columns(name) for name in names)
        width = max(left + CELL * len(arms) + (0.12 + CHANGE * len(contrasts) if contrasts else 0), 4.6)
        heads = [label(arm["label"], 20) for arm in arms]
        changes = [label(name, 22) for name in contrasts]
        above = 0.15 + 0.085 * max(columns(line) for name in heads + changes for line in name.split("\n"))
        depth = ROW * len(domains)
        height = above + depth + 0.5
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0.5 / height, 1, depth / height))
        axes.set_xlim(0, width)
        axes.set_ylim(depth, 0)
        axes.set_axis_off()
        for place, (domain, name) in enumerate(zip(domains, names, strict=True)):
            axes.text(left - 0.1, ROW * (place + 0.5), name, ha="right", va="center", fontsize=SMALL)
            for column, arm in enumerate(arms):
                _mean(axes, left + CELL * column, ROW * place, means[arm["name"]].get(domain.id), scale)
            for column, contrast in enumerate(contrasts):
                side = left + CELL * len(arms) + 0.12 + CHANGE * column
                _difference(axes, side, ROW * place, item_difference(report, contrast, domain.id))
        for column, name in enumerate(heads):
            _head(axes, left + CELL * (column + 0.5), name)
        for column, name in enumerate(changes):
            _head(axes, left + CELL * len(arms) + 0.12 + CHANGE * (column + 0.5), name)
        ends = f" from {fixed(scale.low, 0)} to {fixed(scale.high, 0)}" if scale.low is not None else ""
        foot = f"Mean score{ends}; the stronger the colour, the higher."
        star = "Framed and *: p < .05 after Holm over the domains." if contrasts else ""
        axes.text(0.08, depth + 0.1, "\n".join(filter(None, (foot, star))), va="top", color=MUTED, fontsize=SMALL)
        return Drawn("heatmap", figure, _alt(report, means, scale), on_page=False)


def _head(axes: Axes, place: float, name: str) -> None:
    axes.text(place, -0.06, name, ha="center", va="bottom", rotation=90, fontsize=SMALL, linespacing=1.3)


def _mean(axes: Axes, left: float, top: float, mean: float | None, scale: Scale) -> None:
    if mean is not None and scale.low is not None and scale.high is not None and scale.low < scale.high:
        strength = STRONGEST * min(max((mean - scale.low) / (scale.high - scale.low), 0), 1)
        axes.add_patch(Rectangle((left, top), CELL, ROW, facecolor=HEAT, alpha=strength, linewidth=0))
    axes.add_patch(Rectangle((left, top), CELL, ROW, facecolor="none", edgecolor=LINE, linewidth=0.5))
    colour = MUTED if mean is None else INK
    axes.text(left + CELL / 2, top + ROW / 2, fixed(mean, 2), ha="center", va="center", color=colour, fontsize=SMALL)


def _difference(axes: Axes, left: float, top: float, row: dict[str, Any]) -> None:
    text, stands = fixed(row.get("estimate"), 2, signed=True), significant(row)
    if stands:
        frame: dict[str, Any] = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.1, "zorder": 3}
        axes.add_patch(Rectangle((left + 0.04, top + 0.025), CHANGE - 0.08, ROW - 0.05, **frame))
    looks: dict[str, Any] = {
        "color": MUTED if text == GAP else INK,
        "fontweight": "bold" if stands else "normal",
        "fontsize": SMALL,
    }
    text += "*" if stands else ""
    axes.text(left + CHANGE / 2, top + ROW / 2, text, ha="center", va="center", **looks)


def _alt(report: Report, means: dict[str, dict[str, float]], scale: Scale) -> str:
    parts = []
    for domain in scale.domains:
        own = [f"{arm['label']} {fixed(means[arm['name']].get(domain.id), 2)}" for arm in arms_of(report)]
        for contrast in columns_of(report):
            row = item_difference(report, contrast, domain.id)
            stands = ", p < .05 after Holm" if significant(row) else ""
            own.append(f"{contrast} {fixed(row.get('estimate'), 2, signed=True)}{stands}")
        parts.append(f"{domain.name}: {'; '.join(own)}.")
    return "Mean score by domain and therapist. " + " ".join(parts) + f" Rated by {rater_of(report)}."
