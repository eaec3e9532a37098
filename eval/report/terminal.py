"""The report in the terminal, at the end of a run. Every table of scores names the rater."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cbtrain import NOTICE
from cbtrain.eval.report.claim import bounds_text, claim_of, perplexity_sentence
from cbtrain.eval.report.formatting import GAP, dollars, fixed, percent, whole
from cbtrain.eval.report.schema.report import Report
from cbtrain.eval.report.schema.training import ReportCosts, ReportPerplexity

MOST = 4
"""Most arms that have a column each."""


def summary(report: Report) -> RenderableType:
    """Return the result in a sentence, the tables and the notice."""
    claim = claim_of(report)
    lines = [_text(claim.sentence, "bold"), _text(claim.basis), _text(perplexity_sentence(report))]
    lines += [_text(f"Rated by: {report.rater.credit}", "italic")]
    parts: list[RenderableType] = [
        Panel(Text("\n").join(line for line in lines if line.plain), title="Result", title_align="left"),
        score_table(report),
    ]
    parts += [_text(line) for line in instrument_lines(report)]
    if report.perplexity:
        parts.append(perplexity_table(report.perplexity))
    if report.costs:
        parts.append(_text(costs_line(report.costs)))
    return Group(*parts, _text(report.notice or NOTICE, "dim"))


def instrument_lines(report: Report) -> list[str]:
    """Return a line for each difference by an instrument beside the primary one."""
    lines = []
    for one in report.instruments:
        name = one.scale.name or one.id
        for row in one.analysis.contrasts:
            difference = f"{row.id} {fixed(row.estimate, 2, signed=True)} ({bounds_text(row, 2)})"
            lines.append(f"{name}, rated by {one.judges}: {difference}")
    return lines


def score_table(report: Report) -> Table:
    """Return the mean score by domain and arm, the total, and the number of sessions. With more than MOST arms, which
    would find no room side by side, a row for each arm without the domains."""
    arms = report.arms
    if len(arms) > MOST:
        return _arm_table(report)
    table = _table("Scores", f"Rated by: {report.rater.credit}")
    table.add_column("Domain")
    for arm in arms:
        table.add_column(_text(arm.label), justify="right")
    if len(arms) == 2:
        table.add_column("Difference", justify="right")
    for domain in report.scale.domains:
        _add(table, domain.name, [arm.domains.get(domain.id) for arm in arms])
    table.add_section()
    _add(table, "Total, mean", [arm.total_mean for arm in arms], style="bold")
    table.add_row("Total, SD", *(fixed(arm.total_sd, 2) for arm in arms))
    table.add_row("Sessions", *(whole(arm.sessions) for arm in arms))
    table.add_row("Rated", *(whole(arm.rated) for arm in arms))
    table.add_row("Failed", *(whole(arm.failed) for arm in arms))
    return table


def _arm_table(report: Report) -> Table:
    table = _table("Scores", f"Rated by: {report.rater.credit}. Means of the domains are in the report.")
    table.add_column("Therapist")
    for name in ("Total, mean", "Total, SD", "Sessions", "Rated", "Failed"):
        table.add_column(name, justify="right")
    for arm in report.arms:
        counts = [whole(arm.sessions), whole(arm.rated), whole(arm.failed)]
        table.add_row(_text(arm.label), fixed(arm.total_mean, 2), fixed(arm.total_sd, 2), *counts)
    return table


def costs_line(costs: ReportCosts) -> str:
    """Return how many requests were sent to APIs and what they cost, by role."""
    parts = []
    for row in costs.roles:
        text = f"{row.role} {whole(row.requests)} requests"
        if row.reused:
            text += f" and {whole(row.reused)} kept answers"
        parts.append(f"{text}, {dollars(row.dollars)}")
    return f"APIs: {'; '.join(parts)} (by prices of {costs.prices})"


def perplexity_table(perplexity: ReportPerplexity) -> Table:
    """Return the perplexity of the therapist's words for each held-out patient; lower is better."""
    table = _table("Perplexity on held-out patients (lower is better)", perplexity.verdict)
    table.add_column("Patient")
    for name in ("Tokens", "Base", "Tuned", "Change"):
        table.add_column(name, justify="right")
    for row in perplexity.patients:
        table.add_row(
            _text(row.name or row.patient or GAP),
            whole(row.tokens),
            fixed(row.base, 2),
            fixed(row.tuned, 2),
            percent(row.change_percent, signed=True),
        )
    table.add_section()
    table.add_row("Mean change", "", "", "", percent(perplexity.mean_change_percent, signed=True), style="bold")
    return table


def _table(title: str, caption: str) -> Table:
    return Table(
        title=_text(title, "bold"),
        caption=_text(caption, "italic"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )


def _add(table: Table, name: str, means: Sequence[float | None], style: str | None = None) -> None:
    cells = [fixed(mean, 2) for mean in means]
    if len(means) == 2:
        first, second = means
        cells.append(GAP if first is None or second is None else fixed(second - first, 2, signed=True))
    table.add_row(_text(name), *cells, style=style)


def _text(value: str, style: str = "") -> Text:
    """Return text without markup and without control characters of a terminal."""
    return Text("".join(letter if letter.isprintable() else " " for letter in value), style=style)
