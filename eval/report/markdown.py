"""``report.md``: the claim, the tables and the figures, for a README, an issue or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from cbtrain import NOTICE
from cbtrain.eval.report.claim import bounds_text, claim_of, perplexity_sentence
from cbtrain.eval.report.figures.draw import Figures
from cbtrain.eval.report.figures.heatmap import columns_of, domain_means, item_difference
from cbtrain.eval.report.formatting import GAP, fixed, number, p_value, share, span, whole
from cbtrain.eval.report.interaction import interaction_sentence
from cbtrain.eval.report.notable import (
    Finding,
    analysis_of,
    findings_of,
    length_notes,
    row_of,
    shared_notes,
    significant,
    spread_sentence,
)
from cbtrain.eval.report.shape import Report, arms_of, rater_of, rows, scale_of, table, words

TITLES = {
    "forest": "Differences",
    "scores": "Totals by therapist",
    "heatmap": "Domains by therapist",
    "length": "Length and endings",
}


def render_markdown(report: Report, figures: Figures) -> str:
    """GitHub's Markdown; names and notes are text there too, whatever they hold."""
    claim, rater = claim_of(report), rater_of(report)
    parts = [
        f"# {escape(words(report.get('title')) or 'Evaluation report')}",
        f"**{escape(claim.sentence)}**",
        escape(claim.basis),
        escape(perplexity_sentence(report)),
        f"Rated by: {escape(rater)}",
        f"> **Not for clinical use.** {escape(words(report.get('notice')) or NOTICE)}",
        "## Differences",
        *_contrasts(report),
        _figure(figures, "forest"),
        "## Scores",
        _totals(report),
        _figure(figures, "scores"),
        _domains(report),
        _figure(figures, "heatmap"),
        "## Levels",
        _levels(report),
        "## Length, completion and missing scores",
        _sensitivity(report),
        _completion(report),
        _figure(figures, "length"),
    ]
    curves = [_figure(figures, name) for name in figures if name not in TITLES]
    parts += ["## Training", *curves] if curves else []
    parts.append(
        "The same content as a page: report.html; as data: report.json; the differences for LaTeX: contrasts.tex."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """``text`` on one line, with nothing in it that Markdown or HTML would read as markup."""
    flat = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", flat)
    # What would be a list or a link at the beginning of a line or by itself.
    flat = re.sub(r"^(\d*)([-+.])(?=\s)", r"\1\\\2", flat)
    return re.sub(r"(?i)\b(https?|ftp|www|mailto)(?=[:.])", lambda found: f"{found[0]}&#8203;", flat).replace(
        "@", "&#64;"
    )


def _contrasts(report: Report) -> list[str]:
    findings = findings_of(report)
    if not findings:
        return ["*No comparison between therapists was computed.*"]
    models = analysis_of(report).get("mixed_models")
    head = [
        "Contrast",
        "Estimate",
        "95% interval",
        "p",
        "p, Holm",
        "Bootstrap 95%",
        "Sign-flip p",
        "Mixed model",
        "d_z",
        "Hedges g",
        "Patients",
    ]
    made = _table(head, [_contrast(finding, row_of(models, finding.id)) for finding in findings])
    shared = shared_notes(findings)
    own = [(one.id, [note for note in one.notes if note not in shared]) for one in findings]
    notes = [f"- {escape(name)}: {escape('; '.join(some))}" for name, some in own if some]
    problems = dict.fromkeys(words(row.get("problem")) for row in rows(models) if row.get("problem"))
    told = analysis_of(report).get("notes")
    notes += [f"- All: {escape(note)}" for note in shared]
    notes += [f"- Mixed model: {escape(problem)}" for problem in problems]
    notes += [f"- {escape(words(note))}" for note in told] if isinstance(told, list) else []
    caption = "In points of the total score, the patient as the unit; Holm inside each family. "
    caption += f"Rated by {escape(rater_of(report))}."
    return [caption, made, "\n".join(notes), escape(spread_sentence(report)), escape(interaction_sentence(report))]


def _contrast(finding: Finding, model: dict[str, Any]) -> list[str]:
    row, effect = finding.raw, table(finding.raw.get("effect"))
    return [
        finding.id,
        fixed(row.get("estimate"), 2, signed=True),
        bounds_text(row, 2),
        p_value(row.get("p")),
        p_value(row.get("p_adjusted")),
        span(row.get("bootstrap_low"), row.get("bootstrap_high"), 2),
        p_value(row.get("p_sign_flip")),
        with_interval(model),
        *(
            with_interval(
                {"estimate": effect.get(key), "ci_low": effect.get(f"{key}_low"), "ci_high": effect.get(f"{key}_high")}
            )
            for key in ("d_z", "hedges_g")
        ),
        whole(finding.count),
    ]


def with_interval(row: dict[str, Any]) -> str:
    """``+1.20 (0.30 to 2.10)``; the interval is left out where it is missing."""
    estimate, bounds = fixed(row.get("estimate"), 2, signed=True), bounds_text(row, 2)
    return estimate if GAP in (estimate, bounds) else f"{estimate} ({bounds})"


def _totals(report: Report) -> str:
    arms = arms_of(report)
    if not arms:
        return "*No therapist was evaluated.*"
    head = ["Therapist", "Mean total", "SD", "Sessions", "Rated", "Failed"]
    keys = ("sessions", "rated", "failed")
    return _table(
        head,
        [
            [
                arm["label"],
                fixed(arm.get("total_mean"), 2),
                fixed(arm.get("total_sd"), 2),
                *(whole(arm.get(k)) for k in keys),
            ]
            for arm in arms
        ],
    )


def _domains(report: Report) -> str:
    means, arms, contrasts = domain_means(report), arms_of(report), columns_of(report)
    if not any(means.values()):
        return "*No domain has a mean score.*"
    lines = []
    for domain in scale_of(report).domains:
        cells = [fixed(means[arm["name"]].get(domain.id), 2) for arm in arms]
        for contrast in contrasts:
            row = item_difference(report, contrast, domain.id)
            cells.append(fixed(row.get("estimate"), 2, signed=True) + ("*" if significant(row) else ""))
        lines.append([domain.name, *cells])
    made = _table(["Domain", *(arm["label"] for arm in arms), *contrasts], lines)
    star = "\n\n\\* p < .05 after Holm over the domains of a contrast." if contrasts else ""
    return made + star.replace("<", "&lt;")


def _levels(report: Report) -> str:
    levels = rows(analysis_of(report).get("levels"))
    if not levels:
        return "*Shares at the cut-off, the floor and the ceiling were not computed.*"
    lines = []
    for row in levels:
        bounds = [share(row.get(key)) for key in ("share_low", "share_high")]
        interval = GAP if GAP in bounds else " to ".join(bounds)
        ends = [share(row.get("floor_share")), share(row.get("ceiling_share"))]
        counts = [whole(row.get("n")), whole(row.get("cutoff")), whole(row.get("at_or_above"))]
        lines.append([_label(report, row), *counts, share(row.get("share")), interval, *ends])
    return _table(["Therapist", "Rated", "Cut-off", "At or above", "Share", "95% interval", "Floor", "Ceiling"], lines)


def _sensitivity(report: Report) -> str:
    raw = analysis_of(report)
    length = table(raw.get("length"))
    if not length and not rows(raw.get("bounds")):
        return "*Sensitivity to length and bounds for missing scores were not computed.*"
    least = table(length.get("at_least"))
    lines = []
    for finding in findings_of(report):
        edge = row_of(raw.get("bounds"), finding.id)
        others = (length.get("adjusted"), table(length.get("matched")).get("contrasts"), least.get("contrasts"))
        cells = [with_interval(row_of(other, finding.id)) for other in others]
        lines.append(
            [finding.id, with_interval(finding.raw), *cells, span(edge.get("worst_low"), edge.get("worst_high"), 2)]
        )
    turns = f"{whole(least.get('turns'))} turns and more" if least else "Long sessions only"
    head = ["Contrast", "All rated sessions", "Adjusted for ln(turns)", "Matched on length", turns, "Worst to best"]
    return "\n\n".join([_table(head, lines), "\n".join(f"- {escape(note)}" for note in length_notes(report))]).strip()


def _completion(report: Report) -> str:
    found = rows(table(analysis_of(report).get("completion")).get("arms"))
    if not found:
        return "*Completion by therapist was not computed.*"
    lines = []
    for row in found:
        endings = ", ".join(f"{name.replace('_', ' ')} {whole(n)}" for name, n in table(row.get("endings")).items())
        counts = [whole(row.get(key)) for key in ("planned", "failed", "unrated", "rated")]
        lines.append([_label(report, row), *counts, endings or GAP])
    made = _table(["Therapist", "Planned", "Failed", "Unrated", "Rated", "Endings"], lines)
    return "\n\n".join([made, *_shares(report, "contrasts", "have a score"), *_shares(report, "failures", "failed")])


def _shares(report: Report, part: str, what: str) -> list[str]:
    """How arms differ in what became of sessions: a paragraph, or none where there is nothing to compare."""
    found = rows(table(analysis_of(report).get("completion")).get(part))
    ends = ("estimate", "ci_low", "ci_high")
    told = [
        f"- {escape(words(row.get('id')))}: {with_interval(row | {end: _hundred(row.get(end)) for end in ends})}"
        for row in found
    ]
    lead = f"Difference in the share of sessions that {what}, in percentage points:"
    return ["\n".join([lead, "", *told])] if told else []


def _hundred(value: object) -> float | None:
    found = number(value)
    return None if found is None else 100 * found


def _label(report: Report, row: dict[str, Any]) -> str:
    name = words(row.get("name"))
    return next((arm["label"] for arm in arms_of(report) if arm["name"] == name), name)


def _figure(figures: Figures, name: str) -> str:
    figure = figures.get(name)
    return f"![{escape(figure.alt)}](figures/{name}.png)" if figure else ""


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """The first column to the left, figures to the right."""
    rule = [":--", *["--:"] * (len(head) - 1)]
    drawn = [f"| {' | '.join(escape(cell) or ' ' for cell in line)} |" for line in (head, *lines)]
    return "\n".join([drawn[0], f"| {' | '.join(rule)} |", *drawn[1:]])
