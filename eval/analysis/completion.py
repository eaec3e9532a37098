"""Sessions that came to no score are outcomes of an arm: counted, compared, and bounded, never filled in.

A complete-case estimate is right only if what is missing is like what is there. The bounds ask for nothing: every
missing score is once the worst and once the best that the scale has (Horowitz and Manski 2000).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.contrasts import Contrast, Differences, Plan, contrast_of, session_means, with_holm
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.sessions import Key, SessionFacts

Cell = tuple[str, int]
"""A patient and the number of a session."""


@dataclass(frozen=True, slots=True)
class ArmCompletion:
    """Sessions ``planned`` for an arm, and what became of them: ``failed`` for reasons that are not the therapist's,
    held but ``unrated``, or ``rated``. ``endings`` are counted where they are known."""

    name: str
    planned: int
    failed: int
    unrated: int
    rated: int
    endings: dict[str, int]


@dataclass(frozen=True, slots=True)
class Completion:
    """``contrasts``: differences in the share of planned sessions with a score; ``failures``: in the share that
    failed."""

    arms: list[ArmCompletion]
    contrasts: list[Contrast]
    failures: list[Contrast]


@dataclass(frozen=True, slots=True)
class Bounds:
    """``estimate`` and its interval from the pairs that have both scores, and how far it could move: estimates if each
    of the ``missing`` scores were the worst or the best for the first arm, and the outer ends of their intervals. None
    where the scale, and with it the worst score, is not known."""

    id: str
    missing: int
    estimate: float | None
    ci_low: float | None
    ci_high: float | None
    worst_low: float | None
    worst_high: float | None
    worst_ci_low: float | None
    worst_ci_high: float | None


def planned_sessions(ratings: Ratings, facts: Mapping[Key, SessionFacts]) -> dict[str, list[Cell]]:
    """Every session that an arm held or was rated for. What no file tells of cannot be counted."""
    known = {(str(a), str(p), int(s)) for a, p, s in zip(ratings.arm, ratings.patient, ratings.session, strict=True)}
    known |= {key for key in facts if key[0] in ratings.arms}
    return {arm: sorted(key[1:] for key in known if key[0] == arm) for arm in ratings.arms}


def completion(ratings: Ratings, facts: Mapping[Key, SessionFacts], plans: Sequence[Plan]) -> Completion:
    """What became of every session by arm, and whether arms differ in it, with the patient as the unit."""
    planned = planned_sessions(ratings, facts)
    arms, rated, failed = [], dict[str, dict[Cell, float]](), dict[str, dict[Cell, float]]()
    for arm, cells in planned.items():
        scored = session_means(ratings, ratings.total, arm).keys()
        own = {cell: found for cell in cells if (found := facts.get((arm, *cell)))}
        rated[arm] = {cell: float(cell in scored) for cell in cells}
        failed[arm] = {cell: float(cell in own and own[cell].failed and cell not in scored) for cell in cells}
        lost = int(sum(failed[arm].values()))
        endings = dict(Counter(found.ending for found in own.values() if found.ending).most_common())
        arms.append(ArmCompletion(arm, len(cells), lost, len(cells) - lost - len(scored), len(scored), endings))
    return Completion(arms, _compare(plans, rated), _compare(plans, failed))


def bounds(
    ratings: Ratings, facts: Mapping[Key, SessionFacts], plans: Sequence[Plan], complete: Sequence[Contrast]
) -> list[Bounds]:
    """How far missing scores could move each contrast of ``complete`` (those of ``plans``, from complete pairs)."""
    planned = planned_sessions(ratings, facts)
    scores = {arm: session_means(ratings, ratings.total, arm) for arm in planned}
    scale, count = ratings.scale, len(ratings.item_names)
    ends = (scale.low * count, scale.high * count) if scale else None
    made = []
    for plan, found in zip(plans, complete, strict=True):
        cells = {pair: sorted(set(planned[pair[0]]) & set(planned[pair[1]])) for pair in plan.pairs}
        missing = sum(cell not in scores[arm] for pair, own in cells.items() for arm in pair for cell in own)
        low = high = None
        if ends and found.estimate is not None:
            low = contrast_of(plan, _filled(cells, scores, ends), [], draws=0, seed=0)
            high = contrast_of(plan, _filled(cells, scores, ends[::-1]), [], draws=0, seed=0)
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


def _filled(
    cells: Mapping[tuple[str, str], Iterable[Cell]],
    scores: Mapping[str, Mapping[Cell, float]],
    ends: tuple[float, float],
) -> Differences:
    """Differences with the first of ``ends`` for missing scores of a pair's first arm, the other for its second."""
    own: dict[str, list[float]] = {}
    for (a, b), both in cells.items():
        for cell in both:
            difference = scores[a].get(cell, ends[0]) - scores[b].get(cell, ends[1])
            own.setdefault(cell[0], []).append(difference)
    return {patient: np.array(found) for patient, found in sorted(own.items())}


def _compare(plans: Sequence[Plan], outcomes: Mapping[str, Mapping[Cell, float]]) -> list[Contrast]:
    found = []
    for plan in plans:
        own: dict[str, list[float]] = {}
        for a, b in plan.pairs:
            for cell in sorted(outcomes[a].keys() & outcomes[b].keys()):
                own.setdefault(cell[0], []).append(outcomes[a][cell] - outcomes[b][cell])
        differences = {patient: np.array(values) for patient, values in sorted(own.items())}
        found.append(contrast_of(plan, differences, [], draws=0, seed=0))
    return with_holm(found)
