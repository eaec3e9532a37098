"""An analysis in the terminal: all its tables, as wide as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cbtrain.eval.rating.cue_rater import CUE_RATER, CUE_RATER_LABEL
from cbtrain.eval.report.agreement import show_agreement, with_bounds
from cbtrain.eval.report.course_tables import show_course
from cbtrain.eval.report.formatting import fixed, p_value, share, span, whole
from cbtrain.eval.report.interaction import interaction_sentence
from cbtrain.eval.report.notable import length_notes, spread_sentence
from cbtrain.eval.report.schema.analysis import Analysis, CorrelationPart, LengthPart
from cbtrain.eval.report.schema.estimates import ContrastRow
from cbtrain.eval.report.tahir2025_tables import show_tahir2025

WIDE = 116
"""Columns of a terminal that has room for all figures; narrower ones show the primary ones, and --json has the rest."""


def show_analysis(results: dict[str, Any], console: Console) -> None:
    """Print ``results``, the return value of :func:`cbtrain.eval.analysis.analyze.analysis`."""
    if results["protocol"] == "tahir2025":
        show_tahir2025(results, console)
        return
    analysis = Analysis.model_validate(results)
    _show_groups(analysis, console)
    if analysis.arms_found:
        _say(console, f"Arms, by their names or --arms: {analysis.arms_found}.")
    if analysis.protocol == "tahir2024":
        _show_published(results, console)
    else:
        _show_contrasts(analysis, console)
        _show_subscales(analysis, console)
        _show_checks(analysis, console)
        show_course(analysis, console)
        _show_arms(analysis, console)
        show_agreement(analysis, console)
    if CUE_RATER in analysis.judges:
        _say(console, f"{CUE_RATER}: {CUE_RATER_LABEL}")
    console.print(analysis.notice, style="dim", highlight=False)


def _table(console: Console, title: str, *columns: str) -> Table:
    """Print an empty line, and return a table whose first column is text and whose others are numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    console.print()
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _show_groups(analysis: Analysis, console: Console) -> None:
    title = f"Ratings: {whole(analysis.ratings)}; patients: {whole(analysis.patients)}"
    table = _table(console, title, "arm", "rated", "mean", "SD", "range")
    for group in analysis.groups:
        numbers = (fixed(group.mean, 2), fixed(group.sd, 2), span(group.low, group.high, 2))
        table.add_row(escape(group.name), whole(group.n), *numbers)
    console.print(table)


def _show_published(results: dict[str, Any], console: Console) -> None:
    """Print the 2024 study's own analysis: it has keys of its own, and no report."""
    # Two lines, which leave the items' names room at 80 columns.
    arms = [f"{group['base']}\n{group['variant']}" for group in results["groups"]]
    table = _table(console, "Item means", "item", *arms)
    for item in results["groups"][0]["items"]:
        table.add_row(escape(item), *(fixed(group["items"][item], 2) for group in results["groups"]))
    console.print(table)
    table = _table(console, "Mixed model as published", "term", "estimate", "95 % interval", "p", "p, Bonf.")
    for term in results["fixed_effects"]:
        table.add_row(
            escape(term["term"]),
            fixed(term["estimate"], 3),
            span(term["ci_low"], term["ci_high"], 3),
            p_value(term["p"]),
            p_value(term["p_adjusted"]),
        )
    console.print(table)
    console.print(
        f"Variance of patients {results['patient_variance']:.3f}, residual {results['residual_variance']:.3f}, "
        f"log-likelihood {results['log_likelihood']:.3f}, AIC {results['aic']:.2f}, n {results['n']}, "
        f"optimizer {results['optimizer']}" + (f". PROBLEM: {results['problem']}" if results["problem"] else ""),
        highlight=False,
    )
    console.print("A reproduction: its effect of tuning is pooled over bases, sessions without a score are left out.")


def _show_contrasts(analysis: Analysis, console: Console) -> None:
    if not analysis.contrasts:
        for note in analysis.notes:
            _say(console, f"note: {note}")
        return
    roomy = console.width >= WIDE
    more = ("bootstrap", "mixed model", "d_z of patients") if roomy else ()
    title = "Contrasts, the patient as the unit"
    table = _table(console, title, "", "difference", "95 % interval", "p", "p, Holm", *more)
    for row, model in zip(analysis.contrasts, analysis.mixed_models, strict=True):
        numbers = [fixed(row.estimate, 2, signed=True), span(row.ci_low, row.ci_high, 2)]
        numbers += [p_value(row.p), p_value(row.p_adjusted)]
        if roomy:
            numbers.append(span(row.bootstrap_low, row.bootstrap_high, 2))
            numbers.append(span(model.ci_low, model.ci_high, 2))
            numbers.append(fixed(row.effect and row.effect.d_z, 2))
        table.add_row(escape(row.id), *numbers)
    console.print(table)
    for sentence in (spread_sentence(analysis), interaction_sentence(analysis)):
        if sentence:
            _say(console, sentence)
    for problem in dict.fromkeys(model.problem for model in analysis.mixed_models if model.problem):
        _say(console, f"mixed model: {problem}")
    for note in [*analysis.notes, *_notes_of(analysis.contrasts)]:
        _say(console, f"note: {note}")


def _show_subscales(analysis: Analysis, console: Console) -> None:
    if not analysis.subscales:
        return
    table = _table(console, "Sub-scales, in points of an item", "", "difference", "95 % interval", "p", "p, Holm")
    for row in analysis.subscales:
        numbers = (fixed(row.estimate, 2, signed=True), span(row.ci_low, row.ci_high, 2))
        table.add_row(escape(f"{row.subscale}, {row.contrast}"), *numbers, p_value(row.p), p_value(row.p_adjusted))
    console.print(table)


def _notes_of(contrasts: Sequence[ContrastRow]) -> list[str]:
    """Return each note once, with the ids of its contrasts unless all have it."""
    ids: dict[str, list[str]] = {}
    for row in contrasts:
        for note in row.notes:
            ids.setdefault(note, []).append(row.id)
    return [note if len(names) == len(contrasts) else f"{'; '.join(names)}: {note}" for note, names in ids.items()]


def _show_checks(analysis: Analysis, console: Console) -> None:
    """Print how the differences change with length taken into account, and with any value for missing scores."""
    length, missing = analysis.length, any(row.missing for row in analysis.bounds)
    if not length and not missing:
        return
    columns = ["turns held equal", f"≥ {whole(length.at_least.turns)} turns", "matched on length"] if length else []
    columns += ["worst to best case"] if missing else []
    table = _table(console, "Sensitivity to length and missing scores", "", "difference", *columns)
    for index, contrast in enumerate(analysis.contrasts):
        numbers = [fixed(contrast.estimate, 2, signed=True)]
        if length:
            roomy = console.width >= WIDE
            others = (length.adjusted[index], length.at_least.contrasts[index], length.matched.contrasts[index])
            numbers += [with_bounds(row) if roomy else fixed(row.estimate, 2, signed=True) for row in others]
        if missing:
            bound = analysis.bounds[index]
            numbers.append(span(bound.worst_low, bound.worst_high, 2) if bound.missing else "none missing")
        table.add_row(escape(contrast.id), *numbers)
    console.print(table)
    if length and length.spearman:
        correlation = length.spearman
        bounds = span(correlation.ci_low, correlation.ci_high, 2)
        spearman = f"Spearman {fixed(correlation.r, 2)} ({bounds}) over {whole(correlation.n)} sessions"
        _say(console, f"{_trend(correlation)}: {spearman}.")
    for note in length_notes(analysis):
        _say(console, f"note: {note}")


def _trend(correlation: CorrelationPart) -> str:
    low, high = correlation.ci_low, correlation.ci_high
    if low is None or high is None or low <= 0 <= high:
        return "No clear correlation of totals and turns"
    return "Totals rise with turns" if low > 0 else "Totals fall with turns"


def _show_arms(analysis: Analysis, console: Console) -> None:
    turns = {row.name: row.turns_mean for row in (analysis.length or LengthPart()).arms}
    table = _table(console, "Sessions", "arm", "planned", "failed", "unrated", "turns", "competent")
    for arm, level in zip(analysis.completion.arms, analysis.levels, strict=True):
        competent = share(level.share)
        if level.share_low is not None:
            competent += f" ({share(level.share_low)} to {share(level.share_high)})"
        counts = [whole(arm.planned), whole(arm.failed), whole(arm.unrated)]
        table.add_row(escape(arm.name), *counts, fixed(turns.get(arm.name), 1), competent)
    console.print(table)
    cutoff = analysis.scale and analysis.scale.cutoff
    if cutoff is None:
        _say(console, "Competent: no cut-off is known for this scale.")
    else:
        _say(console, f"Competent: a total of {fixed(cutoff, 0)} or more, by convention; not validated for this scale.")
