"""The results by other instruments than the primary one, and of sub-scales, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from cbtrain.eval.report.claim import bounds_text
from cbtrain.eval.report.formatting import fixed, p_value, whole
from cbtrain.eval.report.markdown_text import escape, table_text
from cbtrain.eval.report.schema.analysis import SubscaleRow
from cbtrain.eval.report.schema.report import Report


def instrument_parts(report: Report) -> list[str]:
    """Return a heading and tables for each further instrument; nothing if there is none."""
    parts = ["## Other instruments"] if report.instruments else []
    for one in report.instruments:
        analysis = one.analysis
        parts += [f"### {escape(one.scale.name or one.id)}", f"Rated by: {escape(one.judges)}"]
        parts += ["\n".join(f"- {escape(note)}" for note in analysis.notes)]
        groups = [[row.name, whole(row.n), fixed(row.mean, 2), fixed(row.sd, 2)] for row in analysis.groups]
        parts.append(table_text(["Therapist", "Rated", "Mean total", "SD"], groups))
        contrasts = [
            [row.id, fixed(row.estimate, 2, signed=True), bounds_text(row, 2), p_value(row.p), p_value(row.p_adjusted)]
            for row in analysis.contrasts
        ]
        if contrasts:
            parts.append(table_text(["Contrast", "Estimate", "95 % interval", "p", "p, Holm"], contrasts))
        parts += subscale_parts(analysis.subscales)
    return parts


def subscale_parts(rows: Iterable[SubscaleRow]) -> list[str]:
    """Return a table of the differences in sub-scales; nothing if there is none."""
    lines = [
        [
            row.contrast,
            row.subscale,
            fixed(row.estimate, 2, signed=True),
            bounds_text(row, 2),
            p_value(row.p),
            p_value(row.p_adjusted),
        ]
        for row in rows
    ]
    head = ["Contrast", "Sub-scale", "Estimate", "95 % interval", "p", "p, Holm"]
    return [table_text(head, lines)] if lines else []
