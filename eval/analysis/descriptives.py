"""Levels of each arm's scores: means, the share of competent sessions, the share of scores at the ends of the scale."""

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


@dataclass(frozen=True, slots=True)
class Level:
    """``n`` rated sessions of an arm; ``share`` of them have a total of ``cutoff`` or more, with a bootstrap interval
    over patients and their sessions (see :func:`_share_interval`). ``floor_share`` and ``ceiling_share``: of single
    scores of items, those at the scale's lowest and highest point. None if the scale has no such line or point, where
    sessions have no scores, for the interval from few patients, and for the ends of the scale where judges are pooled:
    those are as much of who rated as of what."""

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
    """One entry an arm, in the order of arms; ``pooled``: whether judges are."""
    totals, rated = session_means(ratings, ratings.total), Counter(arm for arm, _, _ in ratings.rated_sessions)
    return [_level(ratings, name, rated[name], totals, draws, seed, pooled) for name in ratings.arms]


def _level(
    ratings: Ratings, arm: str, rated: int, totals: Mapping[Key, float], draws: int, seed: int, pooled: bool
) -> Level:
    scale = ratings.scale
    cutoff = scale.cutoff if scale else None
    above: dict[str, list[float]] = {}  # a total at the cut-off may lie below it by what taking severities off leaves
    for (name, patient, _), total in totals.items():
        if name == arm and cutoff is not None:
            above.setdefault(patient, []).append(float(at_least(total, cutoff)))
    groups = [np.array(own) for own in above.values()]
    count = int(sum(own.sum() for own in groups))
    low, high = _share_interval(groups, draws, seed)
    items = ratings.items[ratings.arm == arm]
    items = items[np.isfinite(items)]
    ends = scale if len(items) and not pooled else None
    return Level(
        name=arm,
        n=rated,
        cutoff=cutoff,
        at_or_above=count if groups else None,
        share=count / sum(map(len, groups)) if groups else None,
        share_low=low,
        share_high=high,
        floor_share=float((items == ends.low).mean()) if ends else None,
        ceiling_share=float((items == ends.high).mean()) if ends else None,
    )


def _share_interval(groups: Sequence[np.ndarray], draws: int, seed: int) -> tuple[float | None, float | None]:
    """Of the share of ones in ``groups`` (float ``[sessions]`` for each patient). Of sessions that are all alike it is
    exact over patients, who are as likely as a session or likelier to have one unlike the others."""
    if len({float(value) for own in groups for value in own}) == 1:
        return interval_of_alike(bool(groups[0][0]), len(groups))
    if len(groups) < LEAST_FOR_BOOTSTRAP:
        return None, None
    return percentile_interval(hierarchical_bootstrap(groups, draws, seed, by_patient=False))


@dataclass(frozen=True, slots=True)
class Group:
    """An arm's rated sessions: ``n``, the totals' mean, SD (n − 1), lowest and highest, and the mean of each item. NaN
    where there is nothing to tell it from."""

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
    """Return every arm's sessions, in the order of arms; ``n`` counts those that have no score of their own too (see
    :func:`cbtrain.eval.analysis.agreement.severity.session_means`)."""
    rated = np.isfinite(ratings.total)
    counts = Counter(arm for arm, _, _ in ratings.rated_sessions)
    totals = _by_arm(session_means(ratings, ratings.total))
    items = [
        _by_arm(session_means(ratings, np.where(rated, ratings.items[:, place], np.nan)))
        for place in range(len(ratings.item_names))
    ]
    made = []
    for arm in ratings.arms.values():
        own = totals.get(arm.name, np.empty(0))
        some = len(own) > 0
        made.append(
            Group(
                name=arm.name,
                base=arm.base,
                variant=arm.variant,
                n=counts[arm.name],
                mean=float(own.mean()) if some else math.nan,
                sd=float(own.std(ddof=1)) if len(own) > 1 else math.nan,
                low=float(own.min()) if some else math.nan,
                high=float(own.max()) if some else math.nan,
                items={
                    name: float(by_arm[arm.name].mean()) if arm.name in by_arm else math.nan
                    for name, by_arm in zip(ratings.item_names, items, strict=True)
                },
            )
        )
    return made


def _by_arm(scores: Mapping[Key, float]) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {}
    for (arm, _, _), score in scores.items():
        found.setdefault(arm, []).append(score)
    return {arm: np.array(own) for arm, own in found.items()}
