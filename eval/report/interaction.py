"""Whether tuning changes bases by different amounts, in a sentence."""

from __future__ import annotations

from cbtrain.eval.report.formatting import fixed, number, p_value, span, whole
from cbtrain.eval.report.notable import SIGNIFICANT, analysis_of
from cbtrain.eval.report.shape import Report, table, words


def interaction_sentence(report: Report) -> str:
    """Empty where the analysis has no such test (one base only, or none named)."""
    raw = table(analysis_of(report).get("interaction"))
    p = number(raw.get("p"))
    if not raw:
        return ""
    beyond = _beyond(raw)
    if p is None:
        why = words(raw.get("problem")) or "no reason recorded"
        return f"Whether tuning changes the bases by different amounts could not be tested: {why}.{beyond}"
    shown = (
        "Tuning changed the bases by different amounts"
        if p < SIGNIFICANT
        else "No difference between bases is shown in what tuning changes"
    )
    freedom = raw.get("df")
    df = ", ".join(map(whole, freedom)) if isinstance(freedom, list) else "?"
    test = f"Hotelling's test over {whole(raw.get('patients'))} patients, F({df}) = {fixed(raw.get('statistic'), 2)}"
    return f"{shown} ({test}, p {p_value(p)}).{beyond}"


def _beyond(raw: dict[str, object]) -> str:
    intervals = table(raw.get("intervals"))
    sizes = []
    for base, size in table(raw.get("sizes")).items():
        ends = intervals.get(base)
        bounds = f" ({span(ends[0], ends[1], 1)})" if isinstance(ends, list) and len(ends) == 2 else ""
        sizes.append(f"{base} {fixed(size, 1, signed=True)}{bounds}")
    return f" Points beyond the change of {words(raw.get('reference'))}: {', '.join(sizes)}." if sizes else ""
