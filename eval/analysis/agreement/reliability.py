"""Reliability of the ratings: agreement between judges, of a judge with itself, halo, and each judge's own conclusions.

Intervals resample sessions: agreement is a property of a rater on transcripts, whoever the patient is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from cbtrain.eval.analysis.agreement.coefficients import alpha_draws, halo_draws, icc_draws, kappa_draws
from cbtrain.eval.analysis.agreement.severity import judged_means, severities
from cbtrain.eval.analysis.contrasts import (
    Contrast,
    Plan,
    compare,
    contrast_of,
)
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.resampling import in_order, interval_of_alike, percentile_interval
from cbtrain.eval.analysis.rounding import alike, at_least, at_most, size_of, varying
from cbtrain.eval.analysis.sessions import Key

DRAWS = 2_000
"""Resamples at most: coincidences of totals take memory with each."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95 % percentile interval. NaN if it is not defined, of the interval also where resamples do
    not differ: that would pass for certainty."""

    estimate: float
    ci_low: float
    ci_high: float


def reliability(ratings: Ratings, plans: Sequence[Plan], draws: int, seed: int) -> dict[str, Any] | None:
    """Return everything that the ratings say about their raters, as plain data; None if nothing is rated."""
    rated = ratings.only(np.isfinite(ratings.total))
    if not len(rated):
        return None
    draws = min(draws, DRAWS)
    judges = rated.judges
    groups = [judges, *([list(pair) for pair in combinations(judges, 2)] if len(judges) > 2 else [])]
    between = [_between(rated, group, draws, seed) for group in groups if len(group) > 1]
    by_judge = [_conclusions(rated, judge, plans) for judge in judges] if len(judges) > 1 else []
    return {
        "bootstrap": {"draws": draws, "seed": seed, "levels": "sessions"},
        "judges": judges,
        "between": [found for found in between if found],
        "severity": severities(rated, rated.total) if len(judges) > 1 else {},
        "retest": [found for judge in judges if (found := _retest(rated, judge, draws, seed))],
        "halo": [found for judge in judges if (found := _halo(rated, judge, draws, seed))],
        "by_judge": by_judge,
        "judge_by_arm": [_judge_by_arm(rated, plan, *pair) for pair in combinations(judges, 2) for plan in plans],
    }


def _resamples(n: int, draws: int, seed: int) -> np.ndarray:
    """Return how often each of ``n`` sessions was drawn, float64 ``[1 + draws, n]``; the first row is the data
    itself."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    return np.concatenate([np.ones((1, n)), drawn])


def _estimate(values: np.ndarray, size: float = 1.0) -> Estimate:
    """From the statistic of the data and of resamples; those in which it is not defined are left out. ``size``: of the
    scores, for a statistic in points; coefficients and shares have 1."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not math.isfinite(values[0]) or not len(drawn):
        return Estimate(math.nan, math.nan, math.nan)
    low, high = percentile_interval(drawn)
    if alike(np.array([low, high]), size):
        low = high = math.nan
    return Estimate(float(values[0]), low, high)


def _matrix(rated: Ratings, judges: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Return each judge's mean over repeats, ``[sessions that all of them rated, judges]``, :func:`in_order`."""
    judged = judged_means(rated, values)
    both = [[own.get(judge, math.nan) for judge in judges] for own in judged.values()]
    found = np.array(both, dtype=np.float64).reshape(len(both), len(judges))
    return in_order(found[np.isfinite(found).all(axis=1)])


def _between(rated: Ratings, judges: Sequence[str], draws: int, seed: int) -> dict[str, Any] | None:
    totals = _matrix(rated, judges, rated.total)
    if len(totals) < 2:
        return None
    weights = _resamples(len(totals), draws, seed)
    items = [
        {"item": name, **_agreement(_matrix(rated, judges, rated.items[:, place]), weights)}
        for place, name in enumerate(rated.item_names)
    ]
    return {"judges": list(judges), "sessions": len(totals), "total": _agreement(totals, weights), "items": items}


def _agreement(values: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """Exact agreement is a difference below half a point, adjacent one below one and a half, over pairs of judges."""
    single, mean, consistency = icc_draws(values, weights)
    gaps = np.abs(np.stack([values[:, i] - values[:, j] for i, j in combinations(range(values.shape[1]), 2)], axis=1))
    size = size_of(values)
    found = {
        "icc_single": _estimate(single),
        "icc_mean": _estimate(mean),
        "icc_consistency": _estimate(consistency),
        "kappa": _estimate(kappa_draws(values, weights)),
        "alpha": _estimate(alpha_draws(values, weights)),
        "exact": _share((~at_least(gaps, 0.5, size)).mean(axis=1), weights),
        "adjacent": _share((~at_least(gaps, 1.5, size)).mean(axis=1), weights),
    }
    return {name: asdict(estimate) for name, estimate in found.items()}


def _share(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """Return the mean of ``values`` from 0 to 1, ``[sessions]``."""
    share = float(values.mean())  # exactly 0 or 1 where all values are
    if share in (0.0, 1.0):
        return Estimate(share, *interval_of_alike(share == 1.0, len(values)))
    return _estimate(weights @ values / len(values))


def _retest(rated: Ratings, judge: str, draws: int, seed: int) -> dict[str, Any] | None:
    """Return how well a judge agrees with its own repeats, on sessions that have all of them."""
    own = rated.only(rated.judge == judge)
    repeats = sorted({int(number) for number in own.repeat})
    if len(repeats) < 2:
        return None
    cells: dict[Key, dict[int, float]] = {}
    for session, repeat, total in zip(own.sessions, own.repeat, own.total, strict=True):
        cells.setdefault(session, {})[int(repeat)] = float(total)
    values = np.array([[found[number] for number in repeats] for found in cells.values() if len(found) == len(repeats)])
    if len(values) < 2:
        return None
    values = in_order(values)
    weights = _resamples(len(values), draws, seed)
    spread = np.sqrt(weights @ values.var(axis=1, ddof=1) / len(values))
    icc = asdict(_estimate(icc_draws(values, weights)[0]))
    shown = {"judge": judge, "sessions": len(values), "repeats": len(repeats)}
    return {**shown, "icc": icc, "sd": asdict(_estimate(spread, size_of(values)))}


def _halo(rated: Ratings, judge: str, draws: int, seed: int) -> dict[str, Any] | None:
    """Over sessions, each item averaged over the judge's repeats: those are no more sessions. Items of two sessions
    correlate perfectly or not at all, whatever the judge."""
    own = rated.only(rated.judge == judge)
    cells: dict[Key, list[np.ndarray]] = {}
    for session, items in zip(own.sessions, own.items, strict=True):
        cells.setdefault(session, []).append(items)
    values = np.array([np.mean(items, axis=0) for items in cells.values()])
    if len(values) < 3 or varying(values).sum() < 2:
        return None
    values = in_order(values)
    alpha, mean_r, shares = halo_draws(values, _resamples(len(values), draws, seed))
    return {
        "judge": judge,
        "sessions": len(values),
        "alpha": asdict(_estimate(alpha)),
        "mean_r": asdict(_estimate(mean_r)),
        "first_factor": asdict(_inside(_estimate(shares[:, 0]))),
        "shares": shares[0].tolist(),
    }


def _inside(found: Estimate) -> Estimate:
    """Return ``found``, without its interval if that does not contain the estimate: the largest share of a resample
    is biased upwards."""
    if at_most(found.ci_low, found.estimate) and at_least(found.ci_high, found.estimate):
        return found
    return Estimate(found.estimate, math.nan, math.nan)


def _conclusions(rated: Ratings, judge: str, plans: Sequence[Plan]) -> dict[str, Any]:
    own = rated.only(rated.judge == judge)
    return {"judge": judge, "contrasts": [asdict(found) for found in compare(own, plans, own.total, draws=0)]}


def _judge_by_arm(rated: Ratings, plan: Plan, one: str, other: str) -> dict[str, Any]:
    """Return whether two judges see a contrast differently: by the one minus by the other, on pairs that both of them
    rated, the patient as the unit."""
    found: dict[str, list[float]] = {}
    judged = judged_means(rated, rated.total)
    gaps = {key: own[one] - own[other] for key, own in judged.items() if one in own and other in own}
    for a, b in plan.pairs:
        for (arm, patient, session), gap in sorted(gaps.items()):
            if arm == a and (b, patient, session) in gaps:
                found.setdefault(patient, []).append(gap - gaps[b, patient, session])
    both = {patient: np.array(own) for patient, own in sorted(found.items())}
    contrast: Contrast = contrast_of(plan, both, [], size=size_of(rated.total), draws=0, seed=0)
    contrast = replace(contrast, method="one judge minus the other")
    return {"judges": [one, other], **asdict(contrast)}
