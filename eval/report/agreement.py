"""Agreement between judges in the terminal and in ``report.md``: people with people first."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape as plain
from rich.table import Table

from cbtrain.eval.rating.people import ADJUDICATED
from cbtrain.eval.report.formatting import GAP, fixed, share, span, whole
from cbtrain.eval.report.markdown_text import escape, table_text
from cbtrain.eval.report.schema.analysis import AgreementRow, Analysis, BetweenRow
from cbtrain.eval.report.schema.estimates import EstimateRow

HEADINGS = {
    "people": "People with each other",
    "people and judges": "People and machine judges",
    "judges": "Judges with each other",
    "all": "All together",
    "": "Judges",
}
"""By the kind of those who are compared; reports of older versions have none."""


def grouped(between: Sequence[BetweenRow]) -> list[tuple[str, list[BetweenRow]]]:
    """Return the rows under their headings, in the order of :data:`HEADINGS`; of a kind that is not known, under the
    last one."""
    by_kind: dict[str, list[BetweenRow]] = {kind: [] for kind in HEADINGS}
    for row in between:
        by_kind[row.kind if row.kind in by_kind else ""].append(row)
    return [(HEADINGS[kind], rows) for kind, rows in by_kind.items() if rows]


def settled_sentence(analysis: Analysis) -> str:
    """Return what ``human: adjudicated`` is, if it is among the judges."""
    if ADJUDICATED not in analysis.judges:
        return ""
    return (
        f"{ADJUDICATED}: on sessions that several people rated, the settled score where they differed by much, and "
        "their mean where they did not. Their own ratings stay as they were. It follows from them, so its agreement "
        "with them says nothing and is not computed."
    )


def show_agreement(analysis: Analysis, console: Console) -> None:
    """Print the reliability of the ratings; nothing if it was not computed."""
    agreement = analysis.agreement
    if not agreement:
        return
    if agreement.between:
        names = ("ICC(2,1)", "ICC(3,1)", "weighted kappa", "Krippendorff")
        table = _table(console, "Agreement of judges on the total (95 % intervals)", *names)
        for heading, rows in grouped(agreement.between):
            table.add_row(f"[bold]{heading}[/bold]", *[""] * len(names))
            for between in rows:
                who = f"{', '.join(between.judges)}: {whole(between.sessions)} sessions"
                table.add_row(plain(who), *_coefficients(between.total))
            table.add_section()
        console.print(table)
        first = agreement.between[0]
        table = _table(console, f"By item, {', '.join(map(plain, first.judges))}", *names)
        for item in first.items:
            table.add_row(plain(item.item or ""), *_coefficients(item))
        console.print(table)
    if sentence := settled_sentence(analysis):
        _say(console, sentence)
    for contrast in agreement.judge_by_arm:
        if contrast.estimate is not None:
            _say(console, f"{' minus '.join(contrast.judges)}, {contrast.id}: {with_bounds(contrast)} points")
    for retest in agreement.retest:
        what = f"{whole(retest.repeats)} ratings of {whole(retest.sessions)} sessions by {retest.judge}"
        icc, sd = with_bounds(retest.icc), with_bounds(retest.sd)
        _say(console, f"{what}: ICC(2,1) {icc}, SD within a session {sd}")
    for halo in agreement.halo:
        parts = f"r between items {with_bounds(halo.mean_r)}, first factor {with_bounds(halo.first_factor)}"
        _say(console, f"Halo, {halo.judge}: Cronbach's alpha {with_bounds(halo.alpha)}, {parts}")


def agreement_parts(analysis: Analysis) -> list[str]:
    """Return the section of ``report.md``, without its title."""
    agreement = analysis.agreement
    if not agreement or not agreement.between:
        return ["*No agreement between judges was computed: no two judges rated the same sessions.*"]
    head = ["ICC(2,1)", "ICC(2,k)", "ICC(3,1)", "Weighted kappa", "Krippendorff's alpha", "Exact", "Adjacent"]
    parts = ["Agreement on the total over the sessions that all judges of a row rated, with 95 % bootstrap intervals."]
    for heading, rows in grouped(agreement.between):
        lines = [
            [f"{', '.join(between.judges)}: {whole(between.sessions)} sessions", *_all_coefficients(between.total)]
            for between in rows
        ]
        parts.append(table_text([heading, *head], lines))
    return [*parts, escape(settled_sentence(analysis))]


def with_bounds(row: EstimateRow) -> str:
    """Return ``0.62 (0.40 to 0.80)``; a gap without an estimate."""
    if row.estimate is None:
        return GAP
    bounds = span(row.ci_low, row.ci_high, 2)
    return f"{fixed(row.estimate, 2)} ({'no interval' if bounds == GAP else bounds})"


def _coefficients(row: AgreementRow) -> list[str]:
    return [with_bounds(value) for value in (row.icc_single, row.icc_consistency, row.kappa, row.alpha)]


def _all_coefficients(row: AgreementRow) -> list[str]:
    values = (row.icc_single, row.icc_mean, row.icc_consistency, row.kappa, row.alpha)
    return [*map(with_bounds, values), share(row.exact.estimate), share(row.adjacent.estimate)]


def _table(console: Console, title: str, *columns: str) -> Table:
    """Print an empty line, and return a table whose first column is text and whose others are numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    console.print()
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
