"""What a result does not show: stated from what the report holds, so that nobody has to know it."""

from __future__ import annotations

from cbtrain.eval.report.formatting import counted
from cbtrain.eval.report.schema.analysis import AgreementPart, LengthPart
from cbtrain.eval.report.schema.report import Report

FEW_PATIENTS = 12
"""Below this, intervals rest on few differences; at least 30 of several degrees of difficulty are to be planned."""


def limits_of(report: Report) -> list[str]:
    """Return one sentence for each limit, the gravest first."""
    limits = []
    analysis = report.analysis
    agreement = analysis.agreement or AgreementPart()
    judges = agreement.judges
    if report.rater.kind == "cue":
        limits.append("Scores count wording and judge nothing: this run shows that every stage works, and no more.")
    limits.append("Patients are simulated. How real patients would fare with any of these therapists is not known.")
    if report.scale.note:
        limits.append(report.scale.note)
    if judges and not any(judge.startswith("human") for judge in judges):
        limits.append("No person rated these sessions, so whether the scores are those of an expert is not known.")
    if len(judges) == 1:
        limits.append("One judge alone: what it prefers for its own reasons cannot be told from quality.")
    if judges and not agreement.retest:
        limits.append("No session was rated twice by the same judge: its steadiness is not known.")
    fewest = min((len(row.patients) for row in analysis.contrasts if row.patients), default=0)
    if fewest and fewest < FEW_PATIENTS:
        limits.append(f"{counted(fewest, 'patient')}: conclusions for other patients are uncertain.")
    correlation = (analysis.length or LengthPart()).spearman
    if correlation is None or correlation.r is None:
        limits.append("Whether differences are differences in the length of dialogues could not be looked at.")
    limits.append("Scores of fidelity to CBT are neither outcomes of treatment nor safety; neither was measured here.")
    return limits
