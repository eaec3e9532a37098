"""Sizes of paired effects, with intervals from the noncentral t distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from cbtrain.eval.analysis.rounding import alike


@dataclass(frozen=True, slots=True)
class PairedEffect:
    """``d_z``: mean difference over the SD of differences (Cohen 1988); ``hedges_g``: the same without its bias in
    small samples (Hedges 1981), which two patients cannot give. 95 % intervals; NaN if the differences do not vary.
    """

    d_z: float
    d_z_low: float
    d_z_high: float
    hedges_g: float
    hedges_g_low: float
    hedges_g_high: float


def paired_effect(differences: np.ndarray, level: float = 0.95, size: float = 0.0) -> PairedEffect:
    """``differences``: float ``[patients]`` in points, two at least (ValueError). ``size``: of the scores that were
    subtracted (:func:`cbtrain.eval.analysis.rounding.alike`)."""
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n < 2:
        raise ValueError("an effect size needs two patients")
    if alike(values, size):
        gap = math.nan
        return PairedEffect(gap, gap, gap, gap, gap, gap)
    d = float(values.mean() / values.std(ddof=1))
    t, df = d * math.sqrt(n), n - 1
    low = _noncentrality(t, df, (1 + level) / 2) / math.sqrt(n)
    high = _noncentrality(t, df, (1 - level) / 2) / math.sqrt(n)
    correction = (
        math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else math.nan
    )
    return PairedEffect(d, low, high, d * correction, low * correction, high * correction)


FARTHEST_T = 3e4
"""Beyond it scipy's noncentral t has no numbers that an interval could rest on."""


def _noncentrality(t: float, df: int, probability: float) -> float:
    """Return the noncentrality with which a value up to ``t`` has this ``probability``; NaN beyond
    :data:`FARTHEST_T`."""
    if abs(t) > FARTHEST_T:
        return math.nan

    def excess(noncentrality: float) -> float:
        found = float(stats.nct.cdf(t, df, noncentrality))
        if math.isnan(found):  # scipy has no number here and there, where it is 1 or 0 but for rounding
            found = 1.0 if noncentrality < t else 0.0
        return found - probability

    # The probability falls with the noncentrality.
    low, high, step = t, t, 0.5
    while excess(low) < 0:
        low, step = low - step, step * 1.5
    step = 0.5
    while excess(high) > 0:
        high, step = high + step, step * 1.5
    return float(optimize.brentq(excess, low, high)) if low < high else low
