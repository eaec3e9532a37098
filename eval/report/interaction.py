"""Whether tuning changes bases by different amounts, in a sentence."""

from __future__ import annotations

from cbtrain.eval.report.findings import SIGNIFICANT, analysis_of
from cbtrain.eval.report.shape import Report, table, words
from cbtrain.eval.report.values import fixed, number, p_value, whole


def interaction_sentence(report: Report) -> str:
    """Empty where the analysis has no such test (one base only, or none named)."""
    raw = table(analysis_of(report).get("interaction"))
    p = number(raw.get("p"))
    if not raw:
        return ""
    if p is None:
        why = words(raw.get("problem")) or "no reason recorded"
        return f"Whether tuning changes the bases by different amounts could not be tested: {why}."
    shown = (
        "Tuning changed the bases by different amounts"
        if p < SIGNIFICANT
        else "No difference between bases is shown in what tuning changes"
    )
    test = f"likelihood-ratio test of base × variant, χ²({whole(raw.get('df'))}) = {fixed(raw.get('statistic'), 2)}"
    sizes = [f"{base} {fixed(size, 1, signed=True)}" for base, size in table(raw.get("sizes")).items()]
    beyond = f" Points beyond the change of {words(raw.get('reference'))}: {', '.join(sizes)}." if sizes else ""
    problem = f" Problem with the model: {words(raw.get('problem'))}." if raw.get("problem") else ""
    return f"{shown} ({test}, p {p_value(p)}).{beyond}{problem}"
