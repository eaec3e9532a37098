"""Where each arm's scores lie: means, the share of competent sessions, the share of scores at the ends of the scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.contrasts import session_means
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.resampling import hierarchical_bootstrap, percentile_interval


@dataclass(frozen=True, slots=True)
class Level:
    """``n`` rated sessions of an arm; ``share`` of them have a total of ``cutoff`` or more (None: the scale has no
    such line), with a bootstrap interval over patients and their sessions (None for one patient). ``floor_share`` and
    ``ceiling_share``: of single scores of items, those at the scale's lowest and highest point."""

    name: str
    n: int
    cutoff: float | None
    at_or_above: int | None
    share: float | None
    share_low: float | None
    share_high: float | None
    floor_share: float | None
    ceiling_share: float | None


def levels(ratings: Ratings, draws: int, seed: int) -> list[Level]:
    """One entry an arm, in the order of arms."""
    return [_level(ratings, name, draws, seed) for name in ratings.arms]


def _level(ratings: Ratings, arm: str, draws: int, seed: int) -> Level:
    totals = session_means(ratings, ratings.total, arm)
    scale = ratings.scale
    cutoff = scale.cutoff if scale else None
    above: dict[str, list[float]] = {}
    if cutoff is not None:
        for (patient, _), total in totals.items():
            above.setdefault(patient, []).append(float(total >= cutoff))
    count = sum(sum(own) for own in above.values())
    low: float | None = None
    high: float | None = None
    if len(above) > 1:
        groups = [np.array(own) for own in above.values()]
        low, high = percentile_interval(hierarchical_bootstrap(groups, draws, seed, by_patient=False))
    items = ratings.items[ratings.arm == arm]
    items = items[np.isfinite(items)]
    ends = scale is not None and len(items) > 0
    return Level(
        name=arm,
        n=len(totals),
        cutoff=cutoff,
        at_or_above=int(count) if above else None,
        share=count / len(totals) if above else None,
        share_low=low,
        share_high=high,
        floor_share=float((items == scale.low).mean()) if scale and ends else None,
        ceiling_share=float((items == scale.high).mean()) if scale and ends else None,
    )


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
    """Every arm's sessions, each averaged over its judges and repeats, in the order of arms."""
    made = []
    for arm in ratings.arms.values():
        totals = np.array(list(session_means(ratings, ratings.total, arm.name).values()))
        items = {}
        for place, name in enumerate(ratings.item_names):
            rated = np.where(np.isfinite(ratings.total), ratings.items[:, place], np.nan)
            own = list(session_means(ratings, rated, arm.name).values())
            items[name] = sum(own) / len(own) if own else math.nan
        some = len(totals) > 0
        made.append(
            Group(
                name=arm.name,
                base=arm.base,
                variant=arm.variant,
                n=len(totals),
                mean=float(totals.mean()) if some else math.nan,
                sd=float(totals.std(ddof=1)) if len(totals) > 1 else math.nan,
                low=float(totals.min()) if some else math.nan,
                high=float(totals.max()) if some else math.nan,
                items=items,
            )
        )
    return made
