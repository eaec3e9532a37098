"""Sessions without a score are outcomes of an arm: counted, compared and bounded, and their scores never filled in.

A complete-case estimate is right only if what is missing is like what is there. The bounds ask for nothing: every
missing score is once the worst and once the best that the scale has (Horowitz and Manski 2000).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.contrasts import Contrast, Differences, Plan, contrast_of, with_holm
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import size_of
from cbtrain.eval.analysis.sessions import Key, SessionOutcome

Cell = tuple[str, int]
"""A patient and the number of a session."""

Outcome = tuple[str, Cell]
"""An arm and one of its sessions."""

Outcomes = dict[Outcome, float]


@dataclass(frozen=True, slots=True)
class ArmCompletion:
    """Sessions ``planned`` for an arm, and what became of them: ``failed`` for reasons that are not the therapist's,
    ``unrated``, or ``rated`` by one judge at least. ``endings`` are counted where they are known; ``failed`` is None
    where no session's ending is, and ``unrated`` holds failed ones too."""

    name: str
    planned: int
    failed: int | None
    unrated: int
    rated: int
    endings: dict[str, int]


@dataclass(frozen=True, slots=True)
class Completion:
    """``contrasts``: differences in the share of planned sessions with a score; ``failures``: in the share that
    failed, of those plans whose sessions' endings are known."""

    arms: list[ArmCompletion]
    contrasts: list[Contrast]
    failures: list[Contrast]


@dataclass(frozen=True, slots=True)
class Bounds:
    """``estimate`` and its interval from the pairs that have both scores, and how far it could move: estimates if each
    of the ``missing`` scores were the worst or the best for the first arm, and the outer ends of their intervals. None
    where the scale, and with it the worst score, is not known, and for pooled judges."""

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
    """Return the sessions that each arm was to hold: those that are known, and, since arms treat the same patients in
    sessions of the same numbers, those of arms with which it has any in common."""
    known = set(ratings.sessions) | {key for key in outcomes if key[0] in ratings.arms}
    own = {name: {(patient, number) for arm, patient, number in known if arm == name} for name in ratings.arms}
    return {arm: sorted(set().union(*(other for other in own.values() if other & cells))) for arm, cells in own.items()}


def completion(ratings: Ratings, outcomes: Mapping[Key, SessionOutcome], plans: Sequence[Plan]) -> Completion:
    """Return what became of every session by arm, and whether arms differ in it, with the patient as the unit."""
    planned = planned_sessions(ratings, outcomes)
    arms, rated, failed = [], Outcomes(), Outcomes()
    for arm, cells in planned.items():
        scored = {session[1:] for session in ratings.rated_sessions if session[0] == arm}
        own = {cell: found for cell in cells if (found := outcomes.get((arm, *cell)))}
        lost = sum(own[cell].failed and cell not in scored for cell in own)
        told = any(found.ending for found in own.values())
        rated |= {(arm, cell): float(cell in scored) for cell in cells}
        failed |= {(arm, cell): float(cell in own and own[cell].failed and cell not in scored) for cell in cells}
        counts = Counter(found.ending for found in own.values() if found.ending)
        endings = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        arms.append(
            ArmCompletion(
                arm, len(cells), lost if told else None, len(cells) - lost - len(scored), len(scored), endings
            )
        )
    unknown = {arm.name for arm in arms if arm.failed is None}
    known = [plan for plan in plans if not unknown & {name for pair in plan.pairs for name in pair}]
    return Completion(arms, _compare(plans, planned, rated), _compare(known, planned, failed))


def bounds(
    ratings: Ratings,
    outcomes: Mapping[Key, SessionOutcome],
    plans: Sequence[Plan],
    complete: Sequence[Contrast],
    *,
    known: Ratings | None = None,
    pooled: bool = False,
) -> list[Bounds]:
    """Return how far missing scores could move each contrast of ``complete`` (those of ``plans``, from complete pairs).
    ``known``: what the same judges also gave, for sessions that not all of them rated. None for ``pooled`` judges, of
    whom each could have rated any session."""
    planned = planned_sessions(ratings, outcomes)
    ends = [_totals(known or ratings, planned, end) for end in (0, 1)] if ratings.scale and not pooled else []
    rated = ratings.rated_sessions
    made = []
    for plan, found in zip(plans, complete, strict=True):
        cells = _shared(plan, planned)
        missing = sum((arm, *cell) not in rated for pair, own in cells.items() for arm in pair for cell in own)
        low = high = None
        if ends and found.estimate is not None:
            size = max(_size(end) for end in ends)
            low = contrast_of(plan, _differences(cells, *ends), [], size=size, draws=0, seed=0)
            high = contrast_of(plan, _differences(cells, *ends[::-1]), [], size=size, draws=0, seed=0)
        made.append(
            Bounds(
                id=plan.id,
                missing=missing,
                estimate=found.estimate,
                ci_low=found.ci_low,
                ci_high=found.ci_high,
                worst_low=low.estimate if low else None,
                worst_high=high.estimate if high else None,
                worst_ci_low=low.ci_low if low else None,
                worst_ci_high=high.ci_high if high else None,
            )
        )
    return made


def _totals(ratings: Ratings, planned: Mapping[str, Sequence[Cell]], end: int) -> Outcomes:
    """Return each planned session's total, with the scale's lowest point (``end`` 0) or highest (1) for every score
    that is missing: a session that one item is missing from can move by that item only."""
    assert ratings.scale is not None
    point, count = (ratings.scale.low, ratings.scale.high)[end], len(ratings.item_names)
    judges = len(ratings.judges)
    scored: dict[Key, dict[str, list[np.ndarray]]] = {}
    for session, judge, items in zip(ratings.sessions, ratings.judge, ratings.items, strict=True):
        scored.setdefault(session, {}).setdefault(str(judge), []).append(items)
    made = Outcomes()
    for arm, cells in planned.items():
        for cell in cells:
            totals = [_judged(np.array(rows), point) for rows in scored.get((arm, *cell), {}).values()]
            totals += [point * count] * (judges - len(totals))
            made[arm, cell] = sum(totals) / len(totals) if totals else point * count
    return made


def _judged(rows: np.ndarray, point: float) -> float:
    """Return a judge's total of one session, ``rows`` being the items of its repeats: those that have every score
    decide."""
    whole = rows[np.isfinite(rows).all(axis=1)]
    if len(whole):
        return float(whole.sum(axis=1).mean())
    return float(np.where(np.isfinite(rows), rows, point).sum(axis=1).mean())


def _shared(plan: Plan, planned: Mapping[str, Sequence[Cell]]) -> dict[tuple[str, str], list[Cell]]:
    """Return what both arms of each pair were to hold."""
    return {(a, b): sorted(set(planned[a]) & set(planned[b])) for a, b in plan.pairs}


def _differences(
    cells: Mapping[tuple[str, str], Iterable[Cell]], first: Mapping[Outcome, float], second: Mapping[Outcome, float]
) -> Differences:
    """Of each pair's first arm by ``first`` and its second by ``second``."""
    own: dict[str, list[float]] = {}
    for (a, b), both in cells.items():
        for cell in both:
            own.setdefault(cell[0], []).append(first[a, cell] - second[b, cell])
    return {patient: np.array(found) for patient, found in sorted(own.items())}


def _compare(
    plans: Sequence[Plan], planned: Mapping[str, Sequence[Cell]], outcomes: Mapping[Outcome, float]
) -> list[Contrast]:
    differences = [_differences(_shared(plan, planned), outcomes, outcomes) for plan in plans]
    size = _size(outcomes)
    return with_holm(
        [contrast_of(plan, own, [], size=size, draws=0, seed=0) for plan, own in zip(plans, differences, strict=True)]
    )


def _size(outcomes: Mapping[Outcome, float]) -> float:
    return size_of(np.array(list(outcomes.values())))
