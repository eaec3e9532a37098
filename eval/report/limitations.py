"""Limits of a result: what it does not show, as sentences that follow from the content of the report."""

from __future__ import annotations

from cbtrain.eval.report.formatting import counted
from cbtrain.eval.report.schema.analysis import AgreementPart, LengthPart
from cbtrain.eval.report.schema.report import Report

FEW_PATIENTS = 12
"""With fewer patients, a limit says that conclusions for other patients are uncertain. Plan at least 30, of several
degrees of difficulty."""


def notes_of(report: Report) -> list[str]:
    """Return what the plan says of its therapists and judges: the same family, differences beside the weights."""
    notes = report.protocol.get("notes")
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def limits_of(report: Report) -> list[str]:
    """Return one sentence for each limit of ``report``, the most serious first."""
    limits = []
    analysis = report.analysis
    agreement = analysis.agreement or AgreementPart()
    judges = agreement.judges
    if report.rater.kind == "cue":
        limits.append("Scores count words and are not judgements: this run shows only that every stage works.")
    if report.rater.kind == "trained":
        limits.append("Scores imitate a rater by counted features and are not judgements.")
    limits += [f"{note[:1].upper()}{note[1:]}." for note in notes_of(report)]
    limits.append("Patients are simulated. The effect of these therapists on real patients is not known.")
    if report.scale.note:
        limits.append(report.scale.note)
    if judges and not any(judge.startswith("human") for judge in judges):
        limits.append("No person rated these sessions. Whether experts would give similar scores is not known.")
    if len(judges) == 1:
        limits.append("There is one judge only. Its own preferences cannot be distinguished from quality.")
    if judges and not agreement.retest:
        limits.append("No session was rated twice by the same judge. How much repeated ratings vary is not known.")
    fewest = min((len(row.patients) for row in analysis.contrasts if row.patients), default=0)
    if fewest and fewest < FEW_PATIENTS:
        limits.append(f"{counted(fewest, 'patient')}: conclusions for other patients are uncertain.")
    correlation = (analysis.length or LengthPart()).spearman
    if correlation is None or correlation.r is None:
        limits.append("Whether differences are due to the length of sessions could not be checked.")
    limits.append("Scores of fidelity to CBT measure neither treatment outcome nor safety.")
    return limits
