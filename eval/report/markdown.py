"""``report.md``: the claim, the tables and the figures, for a README, an issue or a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from cbtrain import NOTICE
from cbtrain.eval.report.agreement import agreement_parts
from cbtrain.eval.report.claim import bounds_text, claim_of, perplexity_sentence
from cbtrain.eval.report.course import has_course
from cbtrain.eval.report.figures.draw import Figures
from cbtrain.eval.report.figures.heatmap import columns_of, domain_means, item_difference
from cbtrain.eval.report.flow import STAGES, flow_of, stage_texts
from cbtrain.eval.report.formatting import GAP, fixed, p_value, share, span, whole
from cbtrain.eval.report.interaction import interaction_sentence
from cbtrain.eval.report.markdown_course import course_parts
from cbtrain.eval.report.markdown_instruments import instrument_parts
from cbtrain.eval.report.markdown_text import escape, table_text
from cbtrain.eval.report.notable import (
    Finding,
    findings_of,
    length_notes,
    row_of,
    shared_notes,
    significant,
    spread_sentence,
)
from cbtrain.eval.report.questionnaire import questionnaire_paragraphs
from cbtrain.eval.report.schema.analysis import Analysis, BoundsRow, LengthPart, ModelRow
from cbtrain.eval.report.schema.estimates import ContrastRow, EffectRow, EstimateRow
from cbtrain.eval.report.schema.report import Report

TITLES = {
    "flow": "Participant flow",
    "forest": "Differences",
    "scores": "Totals by therapist",
    "heatmap": "Domains by therapist",
    "length": "Length and endings",
    "subgroups": "Difference by subgroup",
    "phases": "Totals by phase",
    "patients": "Difference by patient",
}


def render_markdown(report: Report, figures: Figures) -> str:
    """Return GitHub's Markdown; nothing in names and notes is read as markup."""
    claim = claim_of(report)
    parts = [
        f"# {escape(report.title or 'Evaluation report')}",
        f"**{escape(claim.sentence)}**",
        escape(claim.basis),
        escape(perplexity_sentence(report)),
        f"Rated by: {escape(report.rater.credit)}",
        f"> **Not for clinical use.** {escape(report.notice or NOTICE)}",
        "## Participant flow",
        _flow(report),
        _figure(figures, "flow"),
        "## Differences",
        *_contrasts(report),
        _figure(figures, "forest"),
        "## Scores",
        _totals(report),
        _figure(figures, "scores"),
        _domains(report),
        _subscales(report.analysis),
        _figure(figures, "heatmap"),
        "## Levels",
        _levels(report),
        "## Length, completion and missing scores",
        _sensitivity(report.analysis),
        _completion(report),
        _figure(figures, "length"),
    ]
    if has_course(report):
        parts += ["## For whom, when, and by whom the patient was played", *course_parts(report)]
        parts += [_figure(figures, name) for name in ("subgroups", "phases", "patients")]
    parts += instrument_parts(report)
    parts += ["## Reliability of the ratings", *agreement_parts(report.analysis)]
    parts += questionnaire_paragraphs(report, table_text, escape)
    curves = [_figure(figures, name) for name in figures if name not in TITLES]
    parts += ["## Training", *curves] if curves else []
    parts.append(
        "The same content as a page: report.html; as data: report.json; the differences for LaTeX: contrasts.tex."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _flow(report: Report) -> str:
    if not report.arms:
        return "*No therapist was evaluated.*"
    lines = [[arm.label, *stage_texts(flow_of(report, arm))] for arm in report.arms]
    return table_text(["Therapist", *STAGES], lines)


def _subscales(analysis: Analysis) -> str:
    lines = []
    for row in analysis.subscales:
        numbers = [fixed(row.estimate, 2, signed=True), span(row.ci_low, row.ci_high)]
        lines.append([row.subscale, row.contrast, *numbers, p_value(row.p), p_value(row.p_adjusted)])
    head = ["Sub-scale, mean of its items", "Contrast", "Estimate", "95 % interval", "p", "p, Holm"]
    return table_text(head, lines) if lines else ""


def _contrasts(report: Report) -> list[str]:
    analysis = report.analysis
    findings = findings_of(analysis)
    if not findings:
        return ["*No comparison between therapists was computed.*"]
    head = [
        "Contrast",
        "Estimate",
        "95 % interval",
        "p",
        "p, Holm",
        "Bootstrap 95 %",
        "Sign-flip p",
        "Mixed model",
        "d_z of patients",
        "Hedges g of patients",
        "Patients",
    ]
    models = analysis.mixed_models
    table = table_text(head, [_contrast(finding, row_of(models, finding.id)) for finding in findings])
    shared = shared_notes(findings)
    own_notes = [(finding.id, [note for note in finding.notes if note not in shared]) for finding in findings]
    notes = [f"- {escape(name)}: {escape('; '.join(some))}" for name, some in own_notes if some]
    notes += [f"- All: {escape(note)}" for note in shared]
    problems = dict.fromkeys(model.problem for model in models if model.problem)
    notes += [f"- Mixed model: {escape(problem)}" for problem in problems]
    notes += [f"- {escape(note)}" for note in analysis.notes]
    caption = "In points of the total score, the patient as the unit; Holm inside each family. "
    caption += f"Rated by {escape(report.rater.credit)}."
    if analysis.arms_found:
        caption += f" Arms: {escape(analysis.arms_found)}."
    sentences = [escape(spread_sentence(analysis)), escape(interaction_sentence(analysis))]
    return [caption, table, "\n".join(notes), *sentences]


def _contrast(finding: Finding, model: ModelRow | None) -> list[str]:
    row, effect = finding.row, finding.row.effect or EffectRow()
    return [
        finding.id,
        fixed(row.estimate, 2, signed=True),
        bounds_text(row, 2),
        p_value(row.p),
        p_value(row.p_adjusted),
        span(row.bootstrap_low, row.bootstrap_high, 2),
        p_value(row.p_sign_flip),
        with_interval(model),
        with_interval(EstimateRow(estimate=effect.d_z, ci_low=effect.d_z_low, ci_high=effect.d_z_high)),
        with_interval(EstimateRow(estimate=effect.hedges_g, ci_low=effect.hedges_g_low, ci_high=effect.hedges_g_high)),
        whole(finding.count),
    ]


def with_interval(row: EstimateRow | None) -> str:
    """Return ``+1.20 (0.30 to 2.10)``, without the interval if it is missing; a gap if there is no row."""
    if row is None:
        return GAP
    estimate, bounds = fixed(row.estimate, 2, signed=True), bounds_text(row, 2)
    return estimate if GAP in (estimate, bounds) else f"{estimate} ({bounds})"


def _totals(report: Report) -> str:
    if not report.arms:
        return "*No therapist was evaluated.*"
    lines = []
    for arm in report.arms:
        counts = [whole(arm.sessions), whole(arm.rated), whole(arm.failed)]
        lines.append([arm.label, fixed(arm.total_mean, 2), fixed(arm.total_sd, 2), *counts])
    return table_text(["Therapist", "Mean total", "SD", "Sessions", "Rated", "Failed"], lines)


def _domains(report: Report) -> str:
    means, contrasts = domain_means(report), columns_of(report.analysis)
    if not any(means.values()):
        return "*No domain has a mean score.*"
    lines = []
    for domain in report.scale.domains:
        cells = [fixed(means[arm.name].get(domain.id), 2) for arm in report.arms]
        for contrast in contrasts:
            row = item_difference(report.analysis, contrast, domain.id)
            cells.append(fixed(row.estimate, 2, signed=True) + ("*" if significant(row) else ""))
        lines.append([domain.name, *cells])
    table = table_text(["Domain", *(arm.label for arm in report.arms), *contrasts], lines)
    star = "\n\n\\* p < .05 after Holm over the domains of a contrast." if contrasts else ""
    return table + star.replace("<", "&lt;")


def _levels(report: Report) -> str:
    levels = report.analysis.levels
    if not levels:
        return "*Shares at the cut-off, the floor and the ceiling were not computed.*"
    lines = []
    for row in levels:
        bounds = [share(row.share_low), share(row.share_high)]
        interval = GAP if GAP in bounds else " to ".join(bounds)
        ends = [share(row.floor_share), share(row.ceiling_share)]
        counts = [whole(row.n), whole(row.cutoff), whole(row.at_or_above)]
        lines.append([_label(report, row.name), *counts, share(row.share), interval, *ends])
    return table_text(
        ["Therapist", "Rated", "Cut-off", "At or above", "Share", "95 % interval", "Floor", "Ceiling"], lines
    )


def _sensitivity(analysis: Analysis) -> str:
    if analysis.length is None and not analysis.bounds:
        return "*Sensitivity to length and bounds for missing scores were not computed.*"
    length = analysis.length or LengthPart()
    least = length.at_least
    lines = []
    for finding in findings_of(analysis):
        edge = row_of(analysis.bounds, finding.id) or BoundsRow()
        others: tuple[Sequence[ContrastRow | ModelRow], ...]
        others = (length.adjusted, length.matched.contrasts, least.contrasts)
        cells = [with_interval(row_of(rows, finding.id)) for rows in others]
        lines.append([finding.id, with_interval(finding.row), *cells, span(edge.worst_low, edge.worst_high, 2)])
    turns = "Long sessions only" if least.turns is None else f"{whole(least.turns)} turns and more"
    head = ["Contrast", "All rated sessions", "Adjusted for ln(turns)", "Matched on length", turns, "Worst to best"]
    notes = [f"- {escape(note)}" for note in length_notes(analysis)]
    return "\n\n".join([table_text(head, lines), "\n".join(notes)]).strip()


def _completion(report: Report) -> str:
    completion = report.analysis.completion
    if not completion.contrasts:
        return "*Whether therapists differ in how many sessions have a score was not computed.*"
    return "\n\n".join([*_shares(completion.contrasts, "have a score"), *_shares(completion.failures, "failed")])


def _shares(contrasts: Sequence[ContrastRow], what: str) -> list[str]:
    """Return a paragraph on how arms differ in what became of sessions, or none if there is nothing to compare."""
    lines = [f"- {escape(row.id)}: {with_interval(_in_percentage_points(row))}" for row in contrasts]
    lead = f"Difference in the share of sessions that {what}, in percentage points:"
    return ["\n".join([lead, "", *lines])] if lines else []


def _in_percentage_points(row: ContrastRow) -> EstimateRow:
    estimate, low, high = (None if end is None else 100 * end for end in (row.estimate, row.ci_low, row.ci_high))
    return EstimateRow(estimate=estimate, se=row.se, ci_low=low, ci_high=high)


def _label(report: Report, name: str) -> str:
    return next((arm.label for arm in report.arms if arm.name == name), name)


def _figure(figures: Figures, name: str) -> str:
    figure = figures.get(name)
    return f"![{escape(figure.alt)}](figures/{name}.png)" if figure else ""
