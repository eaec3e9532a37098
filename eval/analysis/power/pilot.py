"""Variances of a planned comparison, estimated from a pilot: an existing table of ratings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cbtrain.eval.analysis.agreement.severity import judged_means
from cbtrain.eval.analysis.contrast_plan import Plan
from cbtrain.eval.analysis.contrasts import paired_differences
from cbtrain.eval.analysis.power.power import variance_of_difference
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import alike, at_least, at_most, size_of
from cbtrain.eval.analysis.sessions import Key

UPPER = 0.8
"""Level of the one-sided upper limit of the variance, for planning from a small pilot (Browne 1995, Statistics in
Medicine 14)."""

DRAWS = 20_000
"""Draws of the generalized limits."""


class NoPilot(Exception):
    """The variances of a contrast cannot be estimated from a table; the message says why."""


@dataclass(frozen=True, slots=True)
class Spread:
    """SDs in points, defined in :mod:`cbtrain.eval.analysis.power.power`. ``repeat`` is None if it is not known:
    ``within`` then includes it, and the effect of more repeats cannot be computed."""

    between: float
    within: float
    repeat: float | None = None

    def variance(self, seeds: int, repeats: int) -> float:
        """Return the variance of a patient's mean difference between two arms, in squared points."""
        return variance_of_difference(self.between, self.within, self.repeat or 0.0, seeds, repeats)


@dataclass(frozen=True, slots=True)
class Pilot:
    """What a pilot says about one contrast.

    ``estimate``: mean difference in points, over ``patients`` with ``pairs`` of sessions. ``plausible``: draws of the
    variances (between, within, repeat) that are compatible with the pilot, float64 ``[3, draws]``. ``notes``: which
    variances were set to 0 or are not known.
    """

    contrast: str
    spread: Spread
    patients: int
    pairs: int
    estimate: float
    notes: list[str] = field(default_factory=list)
    plausible: np.ndarray = field(default_factory=lambda: np.empty((3, 0)), repr=False, compare=False)

    def upper_variance(self, seeds: int, repeats: int) -> float:
        """Return the one-sided upper limit, at level ``UPPER``, of the variance of a patient's mean difference, in
        squared points."""
        between, within, repeat = self.plausible
        return float(np.quantile(between + 2 * (within + repeat / repeats) / seeds, UPPER))


def estimate(ratings: Ratings, plan: Plan, seed: int = 0) -> Pilot:
    """Return the variances of one pair of arms, on the total. Raises NoPilot if they cannot be estimated.

    The paired differences by patient and session are analysed in a one-way random-effects analysis of variance with
    unequal group sizes (Searle, Casella and McCulloch 1992, ch. 3). The mean square within patients estimates twice the
    variance of sessions and ratings; the excess of the mean square between patients estimates the variance of true
    differences. The variance of repeats is that of ratings of one session by one judge, for one round of ratings by all
    the pilot's judges. A negative estimate is set to 0, with a note. Limits are generalized confidence limits
    (Weerahandi 1993): each mean square is divided by a draw of its chi-square distribution over its degrees of freedom.
    """
    [arms] = plan.pairs
    by_patient, _ = paired_differences(judged_means(ratings, ratings.total), plan)
    differences = list(by_patient.values())
    size = size_of(ratings.total)
    _refuse_without_variances(differences, size)
    sizes = np.array([len(values) for values in differences])
    means = np.array([values.mean() for values in differences])
    pairs, patients = int(sizes.sum()), len(differences)
    df_between, df_within = patients - 1, pairs - patients
    effective_pairs = (pairs - float((sizes**2).sum()) / pairs) / df_between  # per patient, for unequal group sizes
    grand_mean = float(np.concatenate(differences).mean())
    between_ss = 0.0 if alike(means, size) else float((sizes * (means - grand_mean) ** 2).sum())
    between_ms = between_ss / df_between
    within_ms = sum(_sum_of_squares(values, size) for values in differences) / df_within
    repeats = _repeat_variance(ratings, arms)
    # Mean squares of the pilot: as estimated (factor 1), then as they may be in truth.
    rng = np.random.default_rng(seed)
    between_factor, within_factor, repeat_factor = (
        np.concatenate(([1.0], df / rng.chisquare(df, DRAWS))) for df in (df_between, df_within, max(repeats.df, 1))
    )
    repeat = repeats.variance * repeat_factor
    between = (between_ms * between_factor - within_ms * within_factor) / effective_pairs
    within = within_ms * within_factor / 2 - repeat * repeats.mean_inverse_ratings
    # An estimate that is 0 but for rounding is 0, and not negative.
    rating_noise = repeats.variance * repeats.mean_inverse_ratings
    between[0] = 0.0 if at_most(between_ms, within_ms) else between[0]
    within[0] = 0.0 if at_most(within_ms / 2, rating_noise) else within[0]
    notes = []
    if not at_least(between_ms, within_ms):
        notes.append("the estimated variance of true differences between patients is negative, and set to 0")
    if not at_least(within_ms / 2, rating_noise):
        notes.append("the estimated variance of sessions, without the noise of ratings, is negative, and set to 0")
    if not repeats.df:
        notes.append("no session was rated twice by one judge: what more repeats would gain is not known")
    variances = np.maximum(np.stack((between, within, repeat * repeats.mean_inverse_judges)), 0)
    sd_between, sd_within, sd_repeat = np.sqrt(variances[:, 0]).tolist()
    return Pilot(
        contrast=plan.id,
        spread=Spread(sd_between, sd_within, sd_repeat if repeats.df else None),
        patients=patients,
        pairs=pairs,
        estimate=float(means.mean()),
        notes=notes,
        plausible=variances[:, 1:],
    )


def _refuse_without_variances(differences: Sequence[np.ndarray], size: float) -> None:
    """Raise NoPilot if ``differences`` (by patient) are too few, or do not vary beyond rounding of scores of this
    ``size``."""
    if not differences:
        raise NoPilot("no patient has a rated session in both arms")
    if len(differences) == 1:
        raise NoPilot("one patient only: the variance between patients cannot be estimated")
    if all(len(values) == 1 for values in differences):
        raise NoPilot(
            "no patient has two rated sessions in both arms: the variances between and within patients cannot be told "
            "apart"
        )
    if alike(np.concatenate(differences), size):
        raise NoPilot("all differences are the same: nothing varies")


@dataclass(frozen=True, slots=True)
class _Repeats:
    """``variance`` of repeated ratings of one session by one judge, in squared points, with ``df`` degrees of freedom
    (0: there are none). Means over sessions of 1 / number of judges and 1 / number of ratings."""

    variance: float
    df: int
    mean_inverse_judges: float
    mean_inverse_ratings: float


def _repeat_variance(ratings: Ratings, arms: Sequence[str]) -> _Repeats:
    """Return the variance of repeated ratings of the sessions of ``arms``."""
    totals_of: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    totals, sessions = ratings.total, ratings.sessions
    for row in np.flatnonzero(np.isin(ratings.arm, list(arms)) & np.isfinite(totals)):
        totals_of[sessions[row]][str(ratings.judge[row])].append(float(totals[row]))
    repeats = [np.array(values) for by_judge in totals_of.values() for values in by_judge.values()]
    df = sum(len(values) - 1 for values in repeats)
    squares = sum(_sum_of_squares(values, size_of(totals)) for values in repeats)
    return _Repeats(
        variance=squares / df if df else 0.0,
        df=df,
        mean_inverse_judges=float(np.mean([1 / len(by_judge) for by_judge in totals_of.values()])),
        mean_inverse_ratings=float(np.mean([1 / sum(map(len, by_judge.values())) for by_judge in totals_of.values()])),
    )


def _sum_of_squares(values: np.ndarray, size: float) -> float:
    """Return the sum of squared deviations of ``values`` from their mean, 0 if they are :func:`alike` for scores of
    this ``size``."""
    return 0.0 if alike(values, size) else float(((values - values.mean()) ** 2).sum())
