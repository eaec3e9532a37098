"""Each arm's scores: mean and SD, the share of competent sessions, the shares of scores at the ends of the scale."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.agreement.severity import session_means
from cbtrain.eval.analysis.contrasts import LEAST_FOR_BOOTSTRAP
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.resampling import hierarchical_bootstrap, interval_of_alike, percentile_interval
from cbtrain.eval.analysis.rounding import at_least
from cbtrain.eval.analysis.sessions import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Where an arm's scores lie on the scale.

    ``n``: rated sessions. ``at_or_above``: sessions with a total of at least ``cutoff``; ``share``: their share, with a
    95 % interval (:func:`_share_interval`). ``floor_share`` and ``ceiling_share``: shares of single item scores at the
    lowest and the highest point of the scale.

    None if the scale has no cut-off or is not known, if sessions have no scores, for the interval with few patients,
    and for ``floor_share`` and ``ceiling_share`` of pooled judges, whose severities would enter them.
    """

    name: str
    n: int
    cutoff: float | None
    at_or_above: int | None
    share: float | None
    share_low: float | None
    share_high: float | None
    floor_share: float | None
    ceiling_share: float | None


def levels(ratings: Ratings, draws: int, seed: int, *, pooled: bool = False) -> list[Level]:
    """Return the level of each arm, in the order of arms; ``pooled``: whether the judges are pooled."""
    totals = session_means(ratings, ratings.total)
    rated = Counter(arm for arm, _, _ in ratings.rated_sessions)
    return [_level(ratings, name, rated[name], totals, draws, seed, pooled) for name in ratings.arms]


def _level(
    ratings: Ratings, arm: str, rated: int, totals: Mapping[Key, float], draws: int, seed: int, pooled: bool
) -> Level:
    scale = ratings.scale
    cutoff = scale.cutoff if scale else None
    at_or_above: dict[str, list[float]] = {}
    for (name, patient, _), total in totals.items():
        if name == arm and cutoff is not None:
            # With a tolerance: subtracting severities may leave a total just below the cut-off that it has reached.
            at_or_above.setdefault(patient, []).append(float(at_least(total, cutoff)))
    groups = [np.array(indicators) for indicators in at_or_above.values()]
    count = int(sum(indicators.sum() for indicators in groups))
    low, high = _share_interval(groups, draws, seed)
    scores = ratings.items[ratings.arm == arm]
    scores = scores[np.isfinite(scores)]
    ends = scale if len(scores) and not pooled and ratings.parts else None
    return Level(
        name=arm,
        n=rated,
        cutoff=cutoff,
        at_or_above=count if groups else None,
        share=count / sum(map(len, groups)) if groups else None,
        share_low=low,
        share_high=high,
        floor_share=float((scores == ends.low).mean()) if ends else None,
        ceiling_share=float((scores == ends.high).mean()) if ends else None,
    )


def _share_interval(groups: Sequence[np.ndarray], draws: int, seed: int) -> tuple[float | None, float | None]:
    """Return the 95 % interval of the share of ones in ``groups`` (0 or 1, float ``[sessions]`` for each patient):
    bootstrap over patients and their sessions; None with too few patients.

    If all sessions have the same value, every resample has it too. The exact interval with patients as trials is
    returned then; with sessions as trials it would be too narrow, since sessions of one patient are not independent.
    """
    if len({float(value) for group in groups for value in group}) == 1:
        return interval_of_alike(bool(groups[0][0]), len(groups))
    if len(groups) < LEAST_FOR_BOOTSTRAP:
        return None, None
    return percentile_interval(hierarchical_bootstrap(groups, draws, seed, by_patient=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """An arm's rated sessions: their number ``n``, the mean, SD (n − 1), lowest and highest of their totals, and the
    mean of each item. NaN if there are too few sessions."""

    name: str
    base: str
    variant: str
    n: int
    mean: float
    sd: float
    low: float
    high: float
    items: dict[str, float]


def session_groups(ratings: Ratings) -> list[Group]:
    """Return the sessions of each arm, in the order of arms. ``n`` counts every rated session, also if sessions have no
    scores because judges cannot be compared (:func:`cbtrain.eval.analysis.agreement.severity.session_means`)."""
    rated = np.isfinite(ratings.total)
    counts = Counter(arm for arm, _, _ in ratings.rated_sessions)
    totals_by_arm = _by_arm(session_means(ratings, ratings.total))
    item_scores_by_arm = {
        name: _by_arm(session_means(ratings, np.where(rated, ratings.items[:, column], np.nan)))
        for column, name in enumerate(ratings.parts)
    }
    groups = []
    for arm in ratings.arms.values():
        totals = totals_by_arm.get(arm.name, np.empty(0))
        n = len(totals)
        groups.append(
            Group(
                name=arm.name,
                base=arm.base,
                variant=arm.variant,
                n=counts[arm.name],
                mean=float(totals.mean()) if n else math.nan,
                sd=float(totals.std(ddof=1)) if n > 1 else math.nan,
                low=float(totals.min()) if n else math.nan,
                high=float(totals.max()) if n else math.nan,
                items={
                    name: float(by_arm[arm.name].mean()) if arm.name in by_arm else math.nan
                    for name, by_arm in item_scores_by_arm.items()
                },
            )
        )
    return groups


def _by_arm(scores: Mapping[Key, float]) -> dict[str, np.ndarray]:
    """Return ``scores`` of sessions by arm, float64 ``[sessions]`` each."""
    by_arm: dict[str, list[float]] = {}
    for (arm, _, _), score in scores.items():
        by_arm.setdefault(arm, []).append(score)
    return {arm: np.array(arm_scores) for arm, arm_scores in by_arm.items()}
