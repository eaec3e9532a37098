"""The answer of a comparison in words, and what it cannot say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from cbtrain.eval.analysis.contrasts import FEW, Contrast
from cbtrain.eval.rating.cue_rater import CUE_RATER_LABEL
from cbtrain.study.method_comparison.results import FEW_SEEDS
from cbtrain.study.objective_comparison.arms import DPO, ORPO, PLACEBO, SFT, UNTUNED, WHOLE_TEXT
from cbtrain.study.objective_comparison.comparison_file import ObjectivesFile
from cbtrain.study.objective_comparison.results import ArmResult

LEVEL = 0.05
"""Of the adjusted p below which a difference is said to be shown."""

FEWEST = 2
"""Patients below which there is no test."""

FEW_PAIRS = 30
"""Validation pairs below which a share of them says little."""

QUESTION = "Does SFT lower and preference tuning raise the score here, at tuned rates and equal data?"

Verdict = Literal["raises", "lowers", "not shown", "not known"]


def verdict_of(contrast: Contrast | None) -> Verdict:
    """Return what a contrast with the untuned arm shows."""
    if contrast is None or contrast.estimate is None or len(contrast.patients) < FEWEST:
        return "not known"
    if contrast.p_adjusted is None or contrast.p_adjusted >= LEVEL:  # None: all patients differ by the same amount
        return "not shown"
    return "raises" if contrast.estimate > 0 else "lowers"


def answer_of(contrasts: Sequence[Contrast]) -> list[str]:
    """Return the answer, its first sentence first, then a sentence for each planned contrast."""
    by_id = {contrast.id: contrast for contrast in contrasts}
    verdicts = {name: verdict_of(by_id.get(f"{name} − {UNTUNED}")) for name in (SFT, WHOLE_TEXT, ORPO, DPO)}
    there = [name for name in (ORPO, DPO) if f"{name} − {UNTUNED}" in by_id]
    return [f"{QUESTION} {_word(verdicts, there)}", *(_sentence(contrast) for contrast in contrasts)]


def _word(verdicts: Mapping[str, Verdict], preference: Sequence[str]) -> str:
    sft, others = verdicts[SFT], [verdicts[name] for name in preference]
    if sft == "not known" or not others or "not known" in others:
        return "This run cannot tell: it has no test of SFT and of preference tuning against the untuned arm."
    if sft == "lowers" and "raises" in others:
        raised = " and ".join(name for name in preference if verdicts[name] == "raises")
        return f"Yes: sft lowers it, and {raised} raises it."
    if sft == "raises":
        return "No: sft raises it."
    if sft == "not shown" and "raises" in others:
        return "Half of it: preference tuning raises it; that sft lowers it is not shown."
    if sft == "lowers":
        return "Half of it: sft lowers it; that preference tuning raises it is not shown."
    return "It is not shown: no difference of sft and of preference tuning from the untuned arm passes the test."


def _sentence(contrast: Contrast) -> str:
    if contrast.estimate is None:
        return f"{contrast.id}: not known ({'; '.join(contrast.notes)})."
    if contrast.ci_low is None or contrast.ci_high is None or contrast.p_adjusted is None:
        return f"{contrast.id}: {contrast.estimate:+.2f} points, without an interval ({'; '.join(contrast.notes)})."
    interval = f"95 % interval {contrast.ci_low:+.2f} to {contrast.ci_high:+.2f}"
    shown = "shown" if contrast.p_adjusted < LEVEL else "not shown"
    return f"{contrast.id}: {contrast.estimate:+.2f} points, {interval}, adjusted p {contrast.p_adjusted:.3f}: {shown}."


def limits_of(
    file: ObjectivesFile,
    arms: Sequence[ArmResult],
    contrasts: Sequence[Contrast],
    counts: Mapping[str, int],
    judges: Sequence[str],
) -> list[str]:
    """Return what the comparison cannot say, a sentence each."""
    limits = [f"{one.name} failed: {one.failed}" for one in arms if one.failed]
    if unrated := [one.name for one in arms if one.score is None and not one.failed]:
        limits.append(f"{', '.join(unrated)}: no session could be rated")
    patients = max((len(contrast.patients) for contrast in contrasts), default=0)
    if patients < FEW:
        limits.append(f"{patients} patients: small differences cannot be shown, whatever the truth")
    if CUE_RATER_LABEL in judges or "cue" in judges:
        limits.append("the cue rater counts wordings: its score says nothing of therapeutic quality")
    if len(file.seeds) < FEW_SEEDS:
        limits.append(f"training seeds: {len(file.seeds)}; intervals are over patients, not over trainings")
    if edge := [one.name for one in arms if one.at_edge]:
        limits.append(f"{', '.join(edge)}: the best learning rate is at the edge of those tried; try more")
    if single := [one.name for one in arms if len(one.search) == 1 and one.rate]:
        limits.append(f"{', '.join(single)}: one learning rate was tried, so it is not tuned")
    if still := [one.name for one in arms if one.unmoved]:
        limits.append(f"{', '.join(still)}: a run kept the weights from before training, so nothing was learnt")
    if counts["validation"] < FEW_PAIRS:
        limits.append(
            f"{counts['validation']} validation pairs: rates chosen by them, and their shares, are mostly chance"
        )
    if PLACEBO in file.arms and file.rejected_by != "base":
        whose = "are not the base's own" if file.rejected_by == "other" else "are by a writer that is not named"
        text = f"the rejected answers {whose} (rejected_by), so the placebo teaches their style too"
        limits.append(text)
    limits.append("one base and one set of pairs: another base, or pairs chosen by other judges, may differ")
    return limits
