"""Count what became of each arm's sessions, from the plan to the contrast."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from cbtrain.eval.analysis.agreement.panel import Panel, by_panel, panel_ratings
from cbtrain.eval.analysis.agreement.severity import judged_means
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.sessions import Key
from cbtrain.eval.report.flow import first_contrast
from cbtrain.eval.report.schema.analysis import Analysis, PlanRow
from cbtrain.eval.report.schema.report import ArmFlow
from cbtrain.eval.simulation.runner import SimulatedSession

Cells = dict[str, set[tuple[str, int]]]
"""Sessions of each arm, as patients and slots."""


def participant_flow(
    sessions: Sequence[SimulatedSession], ratings: Ratings, panel: Panel, analysis: Analysis
) -> dict[str, ArmFlow]:
    """Return the flow of each arm by name. ``sessions``: of the plan, held or not; ``analysis``: of ``ratings``, whose
    counts of planned, failed and rated sessions are taken."""
    rated = by_panel(ratings, panel).rated_sessions
    rows = panel_ratings(ratings, panel)
    judges_of = {session: set(by_judge) for session, by_judge in judged_means(rows, rows.total).items()}
    compared_cells = {plan.id: _compared_cells(judges_of, plan) for plan in analysis.plan}
    paired: Cells = defaultdict(set)
    for cells_of in compared_cells.values():
        for arm, cells in cells_of.items():
            paired[arm] |= cells
    flows = {}
    for row in analysis.completion.arms:
        arm_sessions = [session for session in sessions if session.arm == row.name]
        ended = {_key(session) for session in arm_sessions if session.ending}
        failures = [session.ending for session in arm_sessions if session.failed and _key(session) not in rated]
        contrast = first_contrast(analysis, row.name)
        compared = compared_cells[contrast.id][row.name] if contrast and contrast.patients else set()
        flows[row.name] = ArmFlow(
            planned=row.planned,
            held=None if row.failed is None else len(ended | {key for key in rated if key[0] == row.name}),
            endings=dict(row.endings),
            failed=row.failed,
            failures=dict(Counter(map(str, failures)).most_common()),
            rated=row.rated,
            paired=len(paired[row.name]),
            contrast=contrast.id if contrast else "",
            compared=len(compared),
            patients=len({patient for patient, _ in compared}),
        )
    return flows


def _key(session: SimulatedSession) -> Key:
    return session.arm, session.patient, session.slot


def _compared_cells(judges_of: Mapping[Key, set[str]], plan: PlanRow) -> Cells:
    """Return the sessions of each arm that ``plan`` compares: the same judge rated the session of the other arm with
    the same patient and slot. ``judges_of``: who rated each session."""
    cells: Cells = defaultdict(set)
    for first, second in plan.pairs:
        for (arm, patient, slot), judges in judges_of.items():
            if arm == first and judges & judges_of.get((second, patient, slot), set()):
                for name in (first, second):
                    cells[name].add((patient, slot))
    return cells
