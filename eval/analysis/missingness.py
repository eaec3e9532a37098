"""Sessions without a score: count them by arm, compare their shares, and bound what they could change.

Missing scores are never filled in. An estimate from complete pairs is unbiased only if missing scores are like the
observed ones. The bounds assume nothing: every missing score is once the worst and once the best of the scale (Horowitz
and Manski 2000).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.contrast_plan import Plan
from cbtrain.eval.analysis.contrasts import Contrast, Differences, contrast_of, with_holm
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import size_of
from cbtrain.eval.analysis.sessions import Key, SessionOutcome

Cell = tuple[str, int]
"""A patient and a session number."""

ArmCell = tuple[str, Cell]
"""An arm and one of its cells: a planned session."""

CellValues = dict[ArmCell, float]
"""One value for each planned session."""


@dataclass(frozen=True, slots=True)
class ArmCompletion:
    """Numbers of sessions of one arm.

    ``planned`` = ``failed`` + ``unrated`` + ``rated``. ``rated``: at least one judge gave a total. ``failed``: ended by
    a failure that is not the therapist's, and not rated. If no ending of the arm is known, ``failed`` is None and
    ``unrated`` includes failed sessions. ``endings``: number of sessions by ending, most frequent first.
    """

    name: str
    planned: int
    failed: int | None
    unrated: int
    rated: int
    endings: dict[str, int]


@dataclass(frozen=True, slots=True)
class Completion:
    """Counts by arm, and contrasts of shares of planned sessions: ``contrasts`` of rated sessions, ``failures`` of
    failed ones. ``failures`` has only the plans whose arms all have known endings."""

    arms: list[ArmCompletion]
    contrasts: list[Contrast]
    failures: list[Contrast]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Worst-case bounds of one contrast, in points.

    ``estimate`` and its interval come from complete pairs. ``missing``: scores that are missing among the planned
    pairs. ``worst_low``, ``worst_high``: the estimates if each missing score were the worst, or the best, for the first
    arm of its pair; ``worst_ci_low``, ``worst_ci_high``: the outer ends of their intervals. The four are None if the
    scale is not known, and for pooled judges.
    """

    id: str
    missing: int
    estimate: float | None
    ci_low: float | None
    ci_high: float | None
    worst_low: float | None
    worst_high: float | None
    worst_ci_low: float | None
    worst_ci_high: float | None


def planned_sessions(ratings: Ratings, outcomes: Mapping[Key, SessionOutcome]) -> dict[str, list[Cell]]:
    """Return the sessions that were planned for each arm, sorted.

    Arms treat the same patients in sessions with the same numbers. So an arm's planned sessions are its observed ones
    (in ``ratings`` or ``outcomes``) and those of every arm that shares a session with it.
    """
    observed = set(ratings.sessions) | {key for key in outcomes if key[0] in ratings.arms}
    cells_of = {name: {(patient, number) for arm, patient, number in observed if arm == name} for name in ratings.arms}
    return {
        arm: sorted(set().union(*(other for other in cells_of.values() if other & cells)))
        for arm, cells in cells_of.items()
    }


def completion(ratings: Ratings, outcomes: Mapping[Key, SessionOutcome], plans: Sequence[Plan]) -> Completion:
    """Return how many sessions of each arm were rated or failed, and the contrasts of these shares, with the patient as
    the unit."""
    planned = planned_sessions(ratings, outcomes)
    rated_sessions = ratings.rated_sessions
    arms: list[ArmCompletion] = []
    rated_values, failed_values = CellValues(), CellValues()
    for arm, cells in planned.items():
        arm_outcomes = {cell: outcome for cell in cells if (outcome := outcomes.get((arm, *cell)))}
        rated = {cell for cell in cells if (arm, *cell) in rated_sessions}
        failed = {cell for cell, outcome in arm_outcomes.items() if outcome.failed and cell not in rated}
        endings = _count_endings(arm_outcomes.values())
        arms.append(
            ArmCompletion(
                name=arm,
                planned=len(cells),
                failed=len(failed) if endings else None,
                unrated=len(cells) - len(failed) - len(rated),
                rated=len(rated),
                endings=endings,
            )
        )
        rated_values |= {(arm, cell): float(cell in rated) for cell in cells}
        failed_values |= {(arm, cell): float(cell in failed) for cell in cells}
    without_endings = {arm.name for arm in arms if arm.failed is None}
    plans_with_endings = [
        plan for plan in plans if not any(name in without_endings for pair in plan.pairs for name in pair)
    ]
    return Completion(
        arms=arms,
        contrasts=_compare(plans, planned, rated_values),
        failures=_compare(plans_with_endings, planned, failed_values),
    )


def _count_endings(outcomes: Iterable[SessionOutcome]) -> dict[str, int]:
    """Return the number of sessions by known ending, most frequent first, then by name."""
    counts = Counter(outcome.ending for outcome in outcomes if outcome.ending)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def bounds(
    ratings: Ratings,
    outcomes: Mapping[Key, SessionOutcome],
    plans: Sequence[Plan],
    complete: Sequence[Contrast],
    *,
    with_partial: Ratings | None = None,
    pooled: bool = False,
) -> list[Bounds]:
    """Return the worst-case bounds of each contrast in ``complete``, which are those of ``plans`` from complete pairs.

    ``with_partial``: the same judges' ratings, with those of sessions that not all of them rated (default:
    ``ratings``). ``pooled`` judges have no bounds: each of them could have rated any session.
    """
    planned = planned_sessions(ratings, outcomes)
    rated = ratings.rated_sessions
    extremes: tuple[CellValues, CellValues] | None = None
    if ratings.scale and not pooled:
        scores = with_partial or ratings
        extremes = (
            _filled_totals(scores, planned, ratings.scale.low),
            _filled_totals(scores, planned, ratings.scale.high),
        )
    results = []
    for plan, contrast in zip(plans, complete, strict=True):
        pair_cells = _shared_cells(plan, planned)
        missing = sum((arm, *cell) not in rated for pair, cells in pair_cells.items() for arm in pair for cell in cells)
        worst = best = None
        if extremes and contrast.estimate is not None:
            lowest, highest = extremes
            size = max(_size(lowest), _size(highest))
            worst = contrast_of(plan, _differences(pair_cells, lowest, highest), [], size=size, draws=0, seed=0)
            best = contrast_of(plan, _differences(pair_cells, highest, lowest), [], size=size, draws=0, seed=0)
        results.append(
            Bounds(
                id=plan.id,
                missing=missing,
                estimate=contrast.estimate,
                ci_low=contrast.ci_low,
                ci_high=contrast.ci_high,
                worst_low=worst.estimate if worst else None,
                worst_high=best.estimate if best else None,
                worst_ci_low=worst.ci_low if worst else None,
                worst_ci_high=best.ci_high if best else None,
            )
        )
    return results


def _filled_totals(ratings: Ratings, planned: Mapping[str, Sequence[Cell]], point: float) -> CellValues:
    """Return the total of each planned session, averaged over judges, with ``point`` in place of every missing item. A
    session that lacks one item can change by that item only."""
    judges, weight = len(ratings.judges), ratings.weight
    rows_of: dict[Key, dict[str, list[np.ndarray]]] = {}
    for session, judge, row in zip(ratings.sessions, ratings.judge, ratings.items, strict=True):
        rows_of.setdefault(session, {}).setdefault(str(judge), []).append(row)
    filled = CellValues()
    for arm, cells in planned.items():
        for cell in cells:
            by_judge = rows_of.get((arm, *cell), {}).values()
            totals = [_filled_total(np.array(rows), point, ratings) for rows in by_judge]
            totals += [point * weight] * (judges - len(totals))
            filled[arm, cell] = sum(totals) / len(totals) if totals else point * weight
    return filled


def _filled_total(repeats: np.ndarray, point: float, ratings: Ratings) -> float:
    """Return one judge's total of one session: the mean over complete repeats, or over all repeats with ``point`` for
    missing items if none is complete. ``repeats``: float ``[repeats, items]``."""
    complete = repeats[np.isfinite(repeats).all(axis=1)]
    if len(complete):
        return float(ratings.total_of(complete).mean())
    return float(ratings.total_of(np.where(np.isfinite(repeats), repeats, point)).mean())


def _shared_cells(plan: Plan, planned: Mapping[str, Sequence[Cell]]) -> dict[tuple[str, str], list[Cell]]:
    """Return, for each pair of arms, the cells that were planned for both."""
    return {(a, b): sorted(set(planned[a]) & set(planned[b])) for a, b in plan.pairs}


def _differences(
    pair_cells: Mapping[tuple[str, str], Iterable[Cell]],
    first: Mapping[ArmCell, float],
    second: Mapping[ArmCell, float],
) -> Differences:
    """Return each pair's differences by patient: the first arm's value in ``first`` − the second arm's in
    ``second``."""
    differences: dict[str, list[float]] = {}
    for (a, b), cells in pair_cells.items():
        for cell in cells:
            patient, _ = cell
            differences.setdefault(patient, []).append(first[a, cell] - second[b, cell])
    return {patient: np.array(values) for patient, values in sorted(differences.items())}


def _compare(
    plans: Sequence[Plan], planned: Mapping[str, Sequence[Cell]], values: Mapping[ArmCell, float]
) -> list[Contrast]:
    """Return the contrasts of ``values`` over planned sessions, adjusted by Holm."""
    size = _size(values)
    contrasts = []
    for plan in plans:
        differences = _differences(_shared_cells(plan, planned), values, values)
        contrasts.append(contrast_of(plan, differences, [], size=size, draws=0, seed=0))
    return with_holm(contrasts)


def _size(values: Mapping[ArmCell, float]) -> float:
    return size_of(np.array(list(values.values())))
