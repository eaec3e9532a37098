"""Participant flow: what became of each arm's planned sessions, stage by stage, until the contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cbtrain.eval.report.formatting import counted, whole
from cbtrain.eval.report.notable import row_of
from cbtrain.eval.report.schema.analysis import Analysis, ArmCompletionRow
from cbtrain.eval.report.schema.estimates import ContrastRow
from cbtrain.eval.report.schema.report import ArmFlow, Report, ReportArm
from cbtrain.transcripts.types import FAILED

STAGES = ("Planned", "Held", "Failed", "Rated", "Paired", "In the contrast")


@dataclass(frozen=True, slots=True)
class Stage:
    """How many sessions of an arm reached a stage (None: not known), and in ``notes`` which, and why others did not.
    ``share``: of the planned ones, 0 to 1; None for failed sessions, which leave the flow, and if it is not known."""

    name: str
    count: float | None
    share: float | None
    notes: tuple[str, ...]


def flow_of(report: Report, arm: ReportArm) -> ArmFlow:
    """Return the flow of ``arm``. A report of an older program has parts of it only, in its analysis."""
    if arm.flow:
        return arm.flow
    completed = row_of(report.analysis.completion.arms, arm.name, "name") or ArmCompletionRow()
    endings = {name: count for name, count in (completed.endings or arm.endings).items() if count is not None}
    contrast = first_contrast(report.analysis, arm.name) or ContrastRow()
    return ArmFlow(
        planned=arm.sessions if completed.planned is None else completed.planned,
        held=sum(endings.values()) if endings else None,
        endings=endings,
        failed=arm.failed if completed.failed is None else completed.failed,
        failures={name: count for name, count in endings.items() if name in FAILED},
        rated=arm.rated if completed.rated is None else completed.rated,
        contrast=contrast.id,
        compared=contrast.pairs,
        patients=len(contrast.patients) or None,
    )


def first_contrast(analysis: Analysis, arm: str) -> ContrastRow | None:
    """Return the first contrast in the plan that compares ``arm``; None if there is none."""
    for plan in analysis.plan:
        if any(arm in pair for pair in plan.pairs):
            return row_of(analysis.contrasts, plan.id)
    return None


def stages_of(flow: ArmFlow) -> list[Stage]:
    """Return the stages of one arm in the order of ``STAGES``."""
    planned, held, failed, rated, paired = flow.planned, flow.held, flow.failed, flow.rated, flow.paired
    not_rated = None if held is None or failed is None or rated is None else held - failed - rated
    last = [flow.contrast] if flow.contrast else []
    last += [counted(int(flow.patients), "patient")] if flow.patients else []
    return [
        _stage(0, planned, planned),
        _stage(1, held, planned, *_counts(flow.endings), *_loss("not held", planned, held)),
        Stage(STAGES[2], failed, None, _counts(flow.failures)),
        _stage(3, rated, planned, *((f"no score {whole(not_rated)}",) if not_rated and not_rated > 0 else ())),
        _stage(4, paired, planned, *_loss("no partner", rated, paired)),
        _stage(5, flow.compared, planned, *last),
    ]


def _stage(index: int, count: float | None, planned: float | None, *notes: str) -> Stage:
    share = min(max(count / planned, 0.0), 1.0) if count is not None and planned and planned > 0 else None
    return Stage(STAGES[index], count, share, notes)


def _loss(what: str, before: float | None, after: float | None) -> tuple[str, ...]:
    """Return ``what`` with the number of sessions that did not reach a stage, or nothing if all did."""
    return (f"{what} {whole(before - after)}",) if before is not None and after is not None and before > after else ()


def _counts(endings: Mapping[str, float | None]) -> tuple[str, ...]:
    """Return ``patient end 20`` for each ending that occurs, the most frequent first."""
    counts = sorted(((-count, name) for name, count in endings.items() if count is not None and count > 0))
    return tuple(f"{name.replace('_', ' ') or 'not recorded'} {whole(-count)}" for count, name in counts)


def stage_texts(flow: ArmFlow) -> list[str]:
    """Return each stage as one text: ``24: patient end 20, max turns 4``."""
    return [f"{whole(stage.count)}{': ' if stage.notes else ''}{', '.join(stage.notes)}" for stage in stages_of(flow)]
