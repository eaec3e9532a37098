"""``report.md``: subgroups of the main difference, totals by phase, trends and patients."""

from __future__ import annotations

from cbtrain.eval.report.course import columns_of, main_subgroups, phases_of, simulator_sentence, variation_sentence
from cbtrain.eval.report.formatting import GAP, fixed, p_value, span, whole
from cbtrain.eval.report.markdown_text import escape, table_text
from cbtrain.eval.report.schema.report import Report


def course_parts(report: Report) -> list[str]:
    """Return the paragraphs and tables that there are. The page and ``report.json`` have all contrasts' subgroups."""
    sentences = [variation_sentence(report.analysis), simulator_sentence(report.analysis)]
    parts = [escape(sentence) for sentence in sentences if sentence]
    return [part for part in (*parts, _subgroups(report), _phases(report), _trend(report), _patients(report)) if part]


def _label(report: Report, name: str) -> str:
    return next((arm.label for arm in report.arms if arm.name == name), name)


def _subgroups(report: Report) -> str:
    groups = main_subgroups(report.analysis)
    if not groups:
        return ""
    lines = []
    for group in groups:
        test = group.test
        p = [p_value(test.p), p_value(test.p_adjusted)] if test else [GAP, GAP]
        for place, row in enumerate(group.rows):
            numbers = [fixed(row.estimate, 2, signed=True), span(row.ci_low, row.ci_high), whole(row.patients)]
            lines.append([f"{group.factor}: {row.level}", *numbers, *(p if place == 0 else ["", ""])])
    return table_text([groups[0].contrast, "Estimate", "95 % interval", "Patients", "Varies: p", "p, Holm"], lines)


def _phases(report: Report) -> str:
    by_arm = phases_of(report.analysis)
    if not by_arm:
        return ""
    phases = [row.phase for row in next(iter(by_arm.values()))]
    lines = []
    for name, rows in by_arm.items():
        cells = [f"{fixed(row.mean, 2)} (SD {fixed(row.sd, 2)}, n {whole(row.n)})" for row in rows]
        lines.append([_label(report, name), *cells])
    return table_text(["Mean total by phase", *phases], lines)


def _trend(report: Report) -> str:
    trend = report.analysis.trend
    if trend is None:
        return ""
    lines = [
        [_label(report, row.name), fixed(row.slope, 2, signed=True), span(row.ci_low, row.ci_high), p_value(row.p), ""]
        for row in trend.arms
    ]
    for row in trend.contrasts:
        numbers = [fixed(row.estimate, 2, signed=True), span(row.ci_low, row.ci_high)]
        lines.append([row.id, *numbers, p_value(row.p), p_value(row.p_adjusted)])
    return table_text(["Change with each session number", "Slope", "95 % interval", "p", "p, Holm"], lines)


def _patients(report: Report) -> str:
    columns = columns_of(report.patients)
    if not columns:
        return ""
    lines = []
    for patient in report.patients:
        known = [patient.columns.get(name, "") for name in columns]
        means = [fixed(patient.totals.get(arm.name), 2) for arm in report.arms]
        difference = fixed(patient.difference, 2, signed=True)
        lines.append([patient.name or patient.id, *known, whole(patient.sessions), *means, difference])
    head = ["Patient", *columns, "Rated sessions", *(arm.label for arm in report.arms), "Difference"]
    return table_text(head, lines)
