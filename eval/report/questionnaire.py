"""What the simulated patients answered, in ``report.md``; and the sentence that says who has answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cbtrain.eval.report.claim import bounds_text
from cbtrain.eval.report.formatting import GAP, fixed, p_value, whole
from cbtrain.eval.report.notable import row_of
from cbtrain.eval.report.schema.questionnaire import AnswersRow
from cbtrain.eval.report.schema.report import Report

CREDIT = "a language model that plays the patient filled it in after each session; no person did, and no judge."

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def questionnaire_paragraphs(report: Report, table: Table, escape: Callable[[str], str]) -> list[str]:
    """Return the section on the patients' answers, drawn by ``table``; nothing if none were recorded."""
    asked = report.questionnaire
    if asked is None:
        return []
    counts = f"{whole(asked.filled_in)} of {whole(asked.asked)} sessions that did not fail have it filled in."
    parts = ["## What the simulated patients said", escape(f"{asked.name}: {CREDIT} {asked.note}".strip()), counts]
    head = [
        "Therapist",
        "Filled in",
        *(f"{s.id}, {whole(s.low)} to {whole(s.high)}: mean (SD)" for s in asked.subscales),
    ]
    lines = []
    for arm in report.arms:
        group = row_of(asked.groups, arm.name, "name") or AnswersRow()
        cells = [_mean(group, scale.id) for scale in asked.subscales]
        lines.append([arm.label, whole(group.n), *cells])
    parts.append(table(head, lines))
    if asked.contrasts:
        head = ["Contrast", "Sub-scale", "Estimate", "95 % interval", "p", "p, Holm", "Patients"]
        parts.append(
            table(
                head,
                (
                    [
                        row.id,
                        row.subscale,
                        fixed(row.estimate, 2, signed=True),
                        bounds_text(row, 2),
                        p_value(row.p),
                        p_value(row.p_adjusted),
                        whole(len(row.patients) or None),
                    ]
                    for row in asked.contrasts
                ),
            )
        )
        parts.append("Holm inside each family of contrasts over all sub-scales, apart from the judges' scores.")
    return parts


def _mean(group: AnswersRow, subscale: str) -> str:
    mean, sd = fixed(group.means.get(subscale), 2), fixed(group.sds.get(subscale), 2)
    return mean if GAP in (mean, sd) else f"{mean} ({sd})"
