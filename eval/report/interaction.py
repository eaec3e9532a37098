"""Whether tuning changes bases by different amounts, in a sentence."""

from __future__ import annotations

from cbtrain.eval.report.formatting import SIGNIFICANT, fixed, p_value, span, whole
from cbtrain.eval.report.schema.analysis import Analysis, InteractionPart


def interaction_sentence(analysis: Analysis) -> str:
    """Return an empty text if the analysis has no such test (one base only, or none named)."""
    test = analysis.interaction
    if test is None:
        return ""
    if test.p is None:
        why = test.problem or "no reason recorded"
        return f"Whether tuning changes the bases by different amounts could not be tested: {why}.{_beyond(test)}"
    result = (
        "Tuning changed the bases by different amounts"
        if test.p < SIGNIFICANT
        else "No difference between bases is shown in what tuning changes"
    )
    df = ", ".join(map(whole, test.df)) or "?"
    name = f"Hotelling's test over {whole(test.patients)} patients, F({df}) = {fixed(test.statistic, 2)}"
    return f"{result} ({name}, p {p_value(test.p)}).{_beyond(test)}"


def _beyond(test: InteractionPart) -> str:
    sizes = []
    for base, size in test.sizes.items():
        ends = test.intervals.get(base, [])
        bounds = f" ({span(ends[0], ends[1])})" if len(ends) == 2 else ""
        sizes.append(f"{base} {fixed(size, signed=True)}{bounds}")
    return f" Points beyond the change of {test.reference}: {', '.join(sizes)}." if sizes else ""
