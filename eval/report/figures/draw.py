"""All figures of a report, each drawn once."""

from __future__ import annotations

from cbtrain.eval.report.figures.curve import curve_figure
from cbtrain.eval.report.figures.drawn import Drawn
from cbtrain.eval.report.figures.flow import flow_figure
from cbtrain.eval.report.figures.forest import forest_figure
from cbtrain.eval.report.figures.heatmap import heatmap_figure
from cbtrain.eval.report.figures.length import length_figure
from cbtrain.eval.report.figures.phases import phases_figure
from cbtrain.eval.report.figures.scores import scores_figure
from cbtrain.eval.report.figures.subgroups import patients_figure, subgroups_figure
from cbtrain.eval.report.schema.report import Report

Figures = dict[str, Drawn]


def figures_of(report: Report) -> Figures:
    """Return figures by name: ``flow``, ``forest``, ``scores``, ``heatmap``, ``length``, ``subgroups``, ``phases``,
    ``patients``, ``curve-1`` for the first stage of training and so on. A figure with nothing to show is left out."""
    drawn = [draw(report) for draw in (flow_figure, forest_figure, scores_figure, heatmap_figure, length_figure)]
    drawn += [draw(report) for draw in (subgroups_figure, phases_figure, patients_figure)]
    drawn += [curve_figure(stage, number) for number, stage in enumerate(report.training, start=1)]
    return {figure.name: figure for figure in drawn if figure}
