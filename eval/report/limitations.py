"""What a result does not show: stated from what the report holds, so that nobody has to know it."""

from __future__ import annotations

from cbtrain.eval.report.claim import contrasts_of
from cbtrain.eval.report.formatting import counted, number
from cbtrain.eval.report.notable import analysis_of
from cbtrain.eval.report.shape import Report, rows, scale_of, table, words

FEW_PATIENTS = 12
"""Below this, intervals rest on few differences; at least 30 of several degrees of difficulty are to be planned."""


def limits_of(report: Report) -> list[str]:
    """One sentence each, the gravest first."""
    found = []
    agreement = table(analysis_of(report).get("agreement"))
    judges = agreement.get("judges")
    names = [words(judge) for judge in judges] if isinstance(judges, list) else []
    if words(table(report.get("rater")).get("kind")) == "cue":
        found.append("Scores count wording and judge nothing: this run shows that every stage works, and no more.")
    found.append("Patients are simulated. How real patients would fare with any of these therapists is not known.")
    if scale_of(report).note:
        found.append(scale_of(report).note)
    if names and not any(name.startswith("human") for name in names):
        found.append("No person rated these sessions, so whether the scores are those of an expert is not known.")
    if len(names) == 1:
        found.append("One judge alone: what it prefers for its own reasons cannot be told from quality.")
    if names and not rows(agreement.get("retest")):
        found.append("No session was rated twice by the same judge: its steadiness is not known.")
    patients = [len(table(one.get("patients"))) for one in contrasts_of(report)]
    fewest = min((count for count in patients if count), default=0)
    if fewest and fewest < FEW_PATIENTS:
        found.append(f"{counted(fewest, 'patient')}: conclusions for other patients are uncertain.")
    if number(table(table(analysis_of(report).get("length")).get("spearman")).get("r")) is None:
        found.append("Whether differences are differences in the length of dialogues could not be looked at.")
    found.append("Scores of fidelity to CBT are neither outcomes of treatment nor safety; neither was measured here.")
    return found
