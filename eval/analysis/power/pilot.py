"""Variances of a planned comparison, estimated from a table of ratings that is there already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cbtrain.eval.analysis.agreement.severity import judged_means
from cbtrain.eval.analysis.contrasts import Plan, paired_differences
from cbtrain.eval.analysis.power.power import variance_of_difference
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import alike, at_least, at_most, size_of

UPPER = 0.8
"""Level of the one-sided limit at which a small pilot is planned for (Browne 1995, Statistics in Medicine 14)."""

DRAWS = 20_000


class NoPilot(Exception):
    """A table cannot tell the variances of a contrast: the message says why."""


@dataclass(frozen=True, slots=True)
class Spread:
    """SDs in points, as :mod:`cbtrain.eval.analysis.power.power` defines them. ``repeat`` is None if it is not known:
    then ``within`` holds it, and more repeats change nothing that could be computed."""

    between: float
    within: float
    repeat: float | None = None

    def variance(self, seeds: int, repeats: int) -> float:
        """Of a patient's mean difference."""
        return variance_of_difference(self.between, self.within, self.repeat or 0.0, seeds, repeats)


@dataclass(frozen=True, slots=True)
class Pilot:
    """What a pilot tells of one contrast. ``likely``: variances (between, within, repeat) that the pilot leaves
    possible, ``[3, draws]``. ``notes`` say what was set to 0."""

    contrast: str
    spread: Spread
    patients: int
    pairs: int
    estimate: float
    notes: list[str] = field(default_factory=list)
    likely: np.ndarray = field(default_factory=lambda: np.empty((3, 0)), repr=False, compare=False)

    def upper_variance(self, seeds: int, repeats: int) -> float:
        """Upper limit, one-sided at ``UPPER``, of the variance of a patient's mean difference."""
        between, within, repeat = self.likely
        return float(np.quantile(between + 2 * (within + repeat / repeats) / seeds, UPPER))


def estimate(ratings: Ratings, plan: Plan, seed: int = 0) -> Pilot:
    """Return the variances of one pair of arms, on the total.

    Paired differences by patient and session in a one-way random-effects analysis of variance (patients may have
    different numbers of sessions; Searle, Casella and McCulloch 1992, ch. 3): the mean square within patients is twice
    the variance of sessions and ratings, what the one between patients has above it is the variance of true
    differences. The noise of repeats is the variance of ratings of the same session by the same judge; it is that of
    one round by all the pilot's judges. A negative estimate is set to 0 and noted. Limits are generalized ones
    (Weerahandi 1993): each mean square over its chi-square distribution. Raises NoPilot.
    """
    [(a, b)] = plan.pairs
    groups, _ = paired_differences(judged_means(ratings, ratings.total), plan)
    values, sizes = list(groups.values()), np.array([len(own) for own in groups.values()])
    if len(values) == 0:
        raise NoPilot("no patient has a rated session in both arms")
    if len(values) == 1:
        raise NoPilot("one patient only: how patients differ cannot be told")
    pairs, n = int(sizes.sum()), len(values)
    if pairs == n:
        raise NoPilot("no patient has two rated sessions in both arms: differences between and within look the same")
    means = np.array([own.mean() for own in values])
    df_between, df_within = n - 1, pairs - n
    grand, scores = float(np.concatenate(values).mean()), size_of(ratings.total)
    between_ms = 0.0 if alike(means, scores) else float((sizes * (means - grand) ** 2).sum()) / df_between
    within_ms = sum(_squares(own, scores) for own in values) / df_within
    if alike(np.concatenate(values), scores):
        raise NoPilot("all differences are the same: nothing varies")
    size = (pairs - float((sizes**2).sum()) / pairs) / df_between
    noise_ms, df_noise, judges, ratings_each = _repeats(ratings, (a, b))
    rng = np.random.default_rng(seed)
    # A factor 1 (the estimate itself) first, then what the pilot leaves possible.
    scale = [np.concatenate(([1.0], df / rng.chisquare(df, DRAWS))) for df in (df_between, df_within, max(df_noise, 1))]
    noise = noise_ms * scale[2]
    between = (between_ms * scale[0] - within_ms * scale[1]) / size
    within = within_ms * scale[1] / 2 - noise * ratings_each
    notes = []
    # An estimate that is 0 but for rounding is 0, and not negative.
    between[0] = 0.0 if at_most(between_ms, within_ms) else between[0]
    within[0] = 0.0 if at_most(within_ms / 2, noise_ms * ratings_each) else within[0]
    if not at_least(between_ms, within_ms):
        notes.append("the estimate of how true differences vary between patients is negative, and set to 0")
    if not at_least(within_ms / 2, noise_ms * ratings_each):
        notes.append("the estimate of how sessions vary beyond the noise of ratings is negative, and set to 0")
    if not df_noise:
        notes.append("no session was rated twice by one judge: what more repeats would gain is not known")
    likely = np.maximum(np.stack((between, within, noise * judges)), 0)
    sd = np.sqrt(likely[:, 0])
    spread = Spread(float(sd[0]), float(sd[1]), float(sd[2]) if df_noise else None)
    return Pilot(plan.id, spread, n, pairs, float(means.mean()), notes, likely[:, 1:])


def _repeats(ratings: Ratings, arms: Sequence[str]) -> tuple[float, int, float, float]:
    """Return the variance of repeated ratings with its degrees of freedom (0: there are none), and the means over
    sessions of 1 / judges and of 1 / ratings."""
    cells: dict[tuple[str, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    totals = ratings.total
    for row in np.flatnonzero(np.isin(ratings.arm, list(arms)) & np.isfinite(totals)):
        cell = cells[str(ratings.arm[row]), str(ratings.patient[row]), int(ratings.session[row])]
        cell[str(ratings.judge[row])].append(float(totals[row]))
    own = [np.array(values) for cell in cells.values() for values in cell.values()]
    df = sum(len(values) - 1 for values in own)
    squares = sum(_squares(values, size_of(totals)) for values in own)
    judges = float(np.mean([1 / len(cell) for cell in cells.values()]))
    each = float(np.mean([1 / sum(map(len, cell.values())) for cell in cells.values()]))
    return (squares / df if df else 0.0), df, judges, each


def _squares(values: np.ndarray, size: float) -> float:
    """Sum of squared deviations of ``values`` from their mean; ``size`` as :func:`alike` has it."""
    return 0.0 if alike(values, size) else float(((values - values.mean()) ** 2).sum())
