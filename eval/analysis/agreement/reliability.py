"""Reliability of the ratings: agreement between judges and of a judge with itself, halo, each judge's own conclusions.

Intervals resample sessions, not patients: agreement is a property of raters on transcripts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from cbtrain.eval.analysis.agreement.coefficients import alpha_draws, halo_draws, icc_draws, kappa_draws
from cbtrain.eval.analysis.agreement.severity import judged_means, severities
from cbtrain.eval.analysis.contrast_plan import Plan
from cbtrain.eval.analysis.contrasts import compare, contrast_of
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.resampling import in_order, interval_of_alike, percentile_interval
from cbtrain.eval.analysis.rounding import alike, at_least, at_most, size_of, varying
from cbtrain.eval.analysis.sessions import Key
from cbtrain.eval.rating.people import ADJUDICATED, people_of

DRAWS = 2_000
"""Most resamples: Krippendorff's alpha holds a table of coincidences in memory for each."""


Kind = Literal["people", "people and judges", "judges", "all"]
"""Of judges that are compared."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95 % percentile interval; NaN if it is not defined. The interval is NaN also if all
    resamples give the same value: an interval of width 0 would look like certainty."""

    estimate: float
    ci_low: float
    ci_high: float


def reliability(ratings: Ratings, plans: Sequence[Plan], draws: int, seed: int) -> dict[str, Any] | None:
    """Return the reliability of ``ratings`` under its keys in JSON; None if no row has a total.

    ``between``: agreement of people with each other, then of people and other judges, of other judges, and of all
    (:func:`groups_of`); what people settled among themselves is left out, since it follows from their ratings.
    ``severity``: by judge, in points; ``retest``: a judge with
    itself; ``halo``; ``by_judge``: contrasts by each judge alone; ``judge_by_arm``: their differences, by pairs.
    """
    rated = ratings.only(np.isfinite(ratings.total))
    if not len(rated):
        return None
    draws = min(draws, DRAWS)
    judges = rated.judges
    raters = [judge for judge in judges if judge != ADJUDICATED]
    several = len(judges) > 1
    between = [_between(rated, kind, group, draws, seed) for kind, group in groups_of(raters)]
    retest = [_retest(rated, judge, draws, seed) for judge in judges]
    halo = [_halo(rated, judge, draws, seed) for judge in judges]
    return {
        "bootstrap": {"draws": draws, "seed": seed, "levels": "sessions"},
        "judges": judges,
        "between": [part for part in between if part],
        "severity": _severity(rated.only(np.isin(rated.judge, raters))) if several else {},
        "retest": [part for part in retest if part],
        "halo": [part for part in halo if part],
        "by_judge": [_conclusions(rated, judge, plans) for judge in judges] if several else [],
        "judge_by_arm": [_judge_by_arm(rated, plan, *pair) for pair in combinations(raters, 2) for plan in plans],
    }


def groups_of(raters: Sequence[str]) -> list[tuple[Kind, list[str]]]:
    """Return who is compared with whom, people with people first: of each kind all together if there are more than two,
    then pairs."""
    people = people_of(raters)
    others = [rater for rater in raters if rater not in people]
    found: list[tuple[Kind, list[str]]] = [("people", group) for group in _together_and_in_pairs(people)]
    found += [("people and judges", [person, other]) for person in people for other in others]
    found += [("judges", group) for group in _together_and_in_pairs(others)]
    if people and others and len(raters) > 2:
        found.append(("all", list(raters)))
    return found


def _together_and_in_pairs(raters: Sequence[str]) -> list[list[str]]:
    pairs = [list(pair) for pair in combinations(raters, 2)]
    return [list(raters), *pairs] if len(raters) > 2 else pairs


def _severity(rated: Ratings) -> dict[str, float]:
    return severities(rated, rated.total) if len(rated.judges) > 1 else {}


def _resamples(n: int, draws: int, seed: int) -> np.ndarray:
    """Return how often each of ``n`` sessions is drawn in each resample, float64 ``[1 + draws, n]``; the first row is
    the sample itself."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    return np.concatenate([np.ones((1, n)), counts])


def _estimate(values: np.ndarray, size: float = 1.0) -> Estimate:
    """Return the estimate of a statistic. ``values``: float ``[1 + draws]``, of the sample and of resamples; resamples
    in which it is not defined (NaN) are left out. ``size``: the largest score for a statistic in points; 1 for
    coefficients and shares."""
    resampled = values[1:][np.isfinite(values[1:])]
    if not math.isfinite(values[0]) or not len(resampled):
        return Estimate(math.nan, math.nan, math.nan)
    low, high = percentile_interval(resampled)
    if alike(np.array([low, high]), size):
        low = high = math.nan
    return Estimate(float(values[0]), low, high)


def _matrix(rated: Ratings, judges: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Return the value of each session by each of ``judges``, averaged over repeats, float64 ``[sessions, judges]``.
    Only sessions that all of them rated, :func:`in_order`. ``values``: float ``[rows]``."""
    judged = judged_means(rated, values)
    rows = [[by_judge.get(judge, math.nan) for judge in judges] for by_judge in judged.values()]
    matrix = np.array(rows, dtype=np.float64).reshape(len(rows), len(judges))
    return in_order(matrix[np.isfinite(matrix).all(axis=1)])


def _between(rated: Ratings, kind: Kind, judges: Sequence[str], draws: int, seed: int) -> dict[str, Any] | None:
    """Return the agreement of ``judges``, who are of this ``kind``, on totals and items; None if they share fewer than
    two sessions."""
    totals = _matrix(rated, judges, rated.total)
    if len(totals) < 2:
        return None
    weights = _resamples(len(totals), draws, seed)
    step = rated.scale.step if rated.scale else 1.0
    items = [
        {"item": name, **_agreement(_matrix(rated, judges, rated.items[:, column]), weights, step)}
        for column, name in enumerate(rated.parts)
    ]
    total = _agreement(totals, weights, step)
    return {"kind": kind, "judges": list(judges), "sessions": len(totals), "total": total, "items": items}


def _agreement(values: np.ndarray, weights: np.ndarray, step: float) -> dict[str, Any]:
    """Return the coefficients of agreement, and over pairs of judges the shares of exact agreement (scores differ by
    less than half a ``step`` of the scale) and adjacent agreement (by less than one and a half). Other arguments as in
    :func:`icc_draws`."""
    single, mean, consistency = icc_draws(values, weights)
    pairs = combinations(range(values.shape[1]), 2)
    differences = np.abs(np.stack([values[:, i] - values[:, j] for i, j in pairs], axis=1))
    size = size_of(values)
    estimates = {
        "icc_single": _estimate(single),
        "icc_mean": _estimate(mean),
        "icc_consistency": _estimate(consistency),
        "kappa": _estimate(kappa_draws(values, weights)),
        "alpha": _estimate(alpha_draws(values, weights)),
        "exact": _share((~at_least(differences, 0.5 * step, size)).mean(axis=1), weights),
        "adjacent": _share((~at_least(differences, 1.5 * step, size)).mean(axis=1), weights),
    }
    return {name: asdict(estimate) for name, estimate in estimates.items()}


def _share(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """Return the mean of ``values``, float ``[sessions]`` from 0 to 1."""
    share = float(values.mean())  # exactly 0 or 1 where all values are
    if share in (0.0, 1.0):
        return Estimate(share, *interval_of_alike(share == 1.0, len(values)))
    return _estimate(weights @ values / len(values))


def _retest(rated: Ratings, judge: str, draws: int, seed: int) -> dict[str, Any] | None:
    """Return a judge's agreement with itself, on sessions that have all of its repeats: ICC(2,1) with repeats as
    raters, and the SD within a session, in points. None if it rated fewer than two sessions twice."""
    by_judge = rated.only(rated.judge == judge)
    repeats = sorted({int(number) for number in by_judge.repeat})
    if len(repeats) < 2:
        return None
    totals_of: dict[Key, dict[int, float]] = {}
    for session, repeat, total in zip(by_judge.sessions, by_judge.repeat, by_judge.total, strict=True):
        totals_of.setdefault(session, {})[int(repeat)] = float(total)
    complete = [totals for totals in totals_of.values() if len(totals) == len(repeats)]
    values = np.array([[totals[number] for number in repeats] for totals in complete])
    if len(values) < 2:
        return None
    values = in_order(values)
    weights = _resamples(len(values), draws, seed)
    icc_single, _, _ = icc_draws(values, weights)
    sd = np.sqrt(weights @ values.var(axis=1, ddof=1) / len(values))
    return {
        "judge": judge,
        "sessions": len(values),
        "repeats": len(repeats),
        "icc": asdict(_estimate(icc_single)),
        "sd": asdict(_estimate(sd, size_of(values))),
    }


def _halo(rated: Ratings, judge: str, draws: int, seed: int) -> dict[str, Any] | None:
    """Return a judge's halo over sessions, with each item averaged over repeats first: repeats are not new sessions.
    None if there are fewer than three sessions (over two, items correlate perfectly) or fewer than two varying
    items."""
    by_judge = rated.only(rated.judge == judge)
    repeats_of: dict[Key, list[np.ndarray]] = {}
    for session, items in zip(by_judge.sessions, by_judge.items, strict=True):
        repeats_of.setdefault(session, []).append(items)
    values = np.array([np.mean(repeats, axis=0) for repeats in repeats_of.values()])
    if len(values) < 3 or varying(values).sum() < 2:
        return None
    values = in_order(values)
    alpha, mean_r, shares = halo_draws(values, _resamples(len(values), draws, seed))
    return {
        "judge": judge,
        "sessions": len(values),
        "alpha": asdict(_estimate(alpha)),
        "mean_r": asdict(_estimate(mean_r)),
        "first_factor": asdict(_without_biased_interval(_estimate(shares[:, 0]))),
        "shares": shares[0].tolist(),
    }


def _without_biased_interval(estimate: Estimate) -> Estimate:
    """Return ``estimate``, without its interval if that does not contain the estimate: the largest share of a resample
    is biased upwards."""
    if at_most(estimate.ci_low, estimate.estimate) and at_least(estimate.ci_high, estimate.estimate):
        return estimate
    return Estimate(estimate.estimate, math.nan, math.nan)


def _conclusions(rated: Ratings, judge: str, plans: Sequence[Plan]) -> dict[str, Any]:
    """Return the contrasts that result from the ratings of ``judge`` alone."""
    by_judge = rated.only(rated.judge == judge)
    return {"judge": judge, "contrasts": [asdict(row) for row in compare(by_judge, plans, by_judge.total, draws=0)]}


def _judge_by_arm(rated: Ratings, plan: Plan, first: str, second: str) -> dict[str, Any]:
    """Return the interaction of judge and arm: the contrast by judge ``first`` minus that by judge ``second``, on pairs
    of sessions that both rated, with the patient as the unit."""
    judge_differences = {
        session: by_judge[first] - by_judge[second]
        for session, by_judge in judged_means(rated, rated.total).items()
        if first in by_judge and second in by_judge
    }
    by_patient: dict[str, list[float]] = {}
    for a, b in plan.pairs:
        for (arm, patient, number), difference in sorted(judge_differences.items()):
            if arm == a and (b, patient, number) in judge_differences:
                by_patient.setdefault(patient, []).append(difference - judge_differences[b, patient, number])
    differences = {patient: np.array(values) for patient, values in sorted(by_patient.items())}
    contrast = contrast_of(plan, differences, [], size=size_of(rated.total), draws=0, seed=0)
    return {"judges": [first, second], **asdict(replace(contrast, method="one judge minus the other"))}
