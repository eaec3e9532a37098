"""The report in the terminal, at the end of a run. The rater's label stands with every score here too."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cbtrain import NOTICE
from cbtrain.eval.report.claim import claim_of, perplexity_sentence
from cbtrain.eval.report.formatting import GAP, dollars, fixed, number, percent, whole
from cbtrain.eval.report.shape import Report, arms_of, rater_of, rows, scale_of, table, words


def summary(report: Report) -> RenderableType:
    """The result in a sentence, the tables and the notice."""
    claim = claim_of(report)
    lines = [_text(claim.sentence, "bold"), _text(claim.basis), _text(perplexity_sentence(report))]
    lines += [_text(f"Rated by: {rater_of(report)}", "italic")]
    parts: list[RenderableType] = [
        Panel(Text("\n").join(line for line in lines if line.plain), title="Result", title_align="left"),
        score_table(report),
    ]
    if table(report.get("perplexity")):
        parts.append(perplexity_table(report))
    spent = table(report.get("costs"))
    if spent:
        parts.append(_text(costs_line(spent)))
    return Group(*parts, _text(words(report.get("notice")) or NOTICE, "dim"))


def score_table(report: Report) -> Table:
    """Mean score by domain and arm, the total, and how many sessions stand behind it."""
    scale, arms = scale_of(report), arms_of(report)
    made = _table("Scores", f"Rated by: {rater_of(report)}")
    made.add_column("Domain")
    for arm in arms:
        made.add_column(_text(arm["label"]), justify="right")
    if len(arms) == 2:
        made.add_column("Difference", justify="right")
    for domain in scale.domains:
        _add(made, domain.name, [table(arm.get("domains")).get(domain.id) for arm in arms])
    made.add_section()
    _add(made, "Total, mean", [arm.get("total_mean") for arm in arms], style="bold")
    for name, key, form in (
        ("Total, SD", "total_sd", lambda value: fixed(value, 2)),
        ("Sessions", "sessions", whole),
        ("Rated", "rated", whole),
        ("Failed", "failed", whole),
    ):
        made.add_row(name, *[form(arm.get(key)) for arm in arms])
    return made


def costs_line(raw: dict[str, Any]) -> str:
    """What the APIs were asked and have cost, by role."""
    parts = []
    for row in rows(raw.get("roles")):
        text = f"{words(row.get('role'))} {whole(row.get('requests'))} requests"
        if row.get("reused"):
            text += f" and {whole(row.get('reused'))} kept answers"
        parts.append(f"{text}, {dollars(row.get('dollars'))}")
    return f"APIs: {'; '.join(parts)} (by prices of {words(raw.get('prices'))})"


def perplexity_table(report: Report) -> Table:
    """Perplexity of the therapist's words for each held-out patient; lower is better."""
    raw = table(report.get("perplexity"))
    made = _table("Perplexity on held-out patients (lower is better)", words(raw.get("verdict")))
    made.add_column("Patient")
    for name in ("Tokens", "Base", "Tuned", "Change"):
        made.add_column(name, justify="right")
    for row in rows(raw.get("patients")):
        made.add_row(
            _text(words(row.get("name") or row.get("patient")) or GAP),
            whole(row.get("tokens")),
            fixed(row.get("base"), 2),
            fixed(row.get("tuned"), 2),
            percent(row.get("change_percent"), signed=True),
        )
    made.add_section()
    made.add_row("Mean change", "", "", "", percent(raw.get("mean_change_percent"), signed=True), style="bold")
    return made


def _table(title: str, caption: str) -> Table:
    return Table(
        title=_text(title, "bold"),
        caption=_text(caption, "italic"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )


def _add(made: Table, name: str, means: list[Any], style: str | None = None) -> None:
    cells = [fixed(mean, 2) for mean in means]
    if len(means) == 2:
        first, second = (number(mean) for mean in means)
        cells.append(GAP if first is None or second is None else fixed(second - first, 2, signed=True))
    made.add_row(_text(name), *cells, style=style)


def _text(value: str, style: str = "") -> Text:
    """Text that is shown as it is: no markup, and nothing that steers a terminal."""
    return Text("".join(letter if letter.isprintable() else " " for letter in value), style=style)
