"""Subgroups, phases and trends of an analysis in the terminal: the main contrast by level, and what varies."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cbtrain.eval.report.course import main_subgroups, phases_of, simulator_sentence, variation_sentence
from cbtrain.eval.report.formatting import GAP, fixed, p_value, span, whole
from cbtrain.eval.report.schema.analysis import Analysis


def show_course(analysis: Analysis, console: Console) -> None:
    """Print what there is of subgroups, totals by phase and trend; nothing if there is none."""
    _show_subgroups(analysis, console)
    _show_phases(analysis, console)
    _show_trend(analysis, console)


def _show_subgroups(analysis: Analysis, console: Console) -> None:
    groups = main_subgroups(analysis)
    if not groups:
        return
    columns = ("difference", "95 % interval", "patients", "varies: p", "p, Holm")
    table = _table(console, f"Subgroups, {escape(groups[0].contrast)}", *columns)
    for group in groups:
        for place, row in enumerate(group.rows):
            test = group.test if place == 0 else None
            p = [p_value(test.p), p_value(test.p_adjusted)] if test else ["", ""]
            estimate, bounds = fixed(row.estimate, 2, signed=True), span(row.ci_low, row.ci_high, 2)
            table.add_row(escape(f"{group.factor}: {row.level}"), estimate, bounds, whole(row.patients), *p)
    console.print(table)
    for sentence in (variation_sentence(analysis), simulator_sentence(analysis)):
        if sentence:
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _show_phases(analysis: Analysis, console: Console) -> None:
    by_arm = phases_of(analysis)
    if not by_arm:
        return
    phases = [row.phase for row in next(iter(by_arm.values()))]
    table = _table(console, "Mean total by phase (rated sessions)", *phases)
    for name, rows in by_arm.items():
        cells = [GAP if row.mean is None else f"{fixed(row.mean, 2)} ({whole(row.n)})" for row in rows]
        table.add_row(escape(name), *cells)
    console.print(table)


def _show_trend(analysis: Analysis, console: Console) -> None:
    trend = analysis.trend
    if trend is None:
        return
    table = _table(console, "Change of the total with each session number", "slope", "95 % interval", "p", "p, Holm")
    for row in trend.arms:
        bounds = span(row.ci_low, row.ci_high, 2)
        table.add_row(escape(row.name), fixed(row.slope, 2, signed=True), bounds, p_value(row.p), "")
    for contrast in trend.contrasts:
        numbers = (fixed(contrast.estimate, 2, signed=True), span(contrast.ci_low, contrast.ci_high, 2))
        table.add_row(escape(contrast.id), *numbers, p_value(contrast.p), p_value(contrast.p_adjusted))
    console.print(table)


def _table(console: Console, title: str, *columns: str) -> Table:
    """Print an empty line, and return a table whose first column is text and whose others are numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    console.print()
    return table
