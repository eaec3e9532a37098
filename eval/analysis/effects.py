"""Sizes of paired effects, with intervals from the noncentral t distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from cbtrain.eval.analysis.rounding import alike


@dataclass(frozen=True, slots=True)
class PairedEffect:
    """``d_z``: mean difference over the SD of differences (Cohen 1988); ``hedges_g``: the same without its bias in
    small samples (Hedges 1981), which two patients cannot give. 95 % intervals; NaN if the differences do not vary.
    ``unit``: of what they are. Means of patients vary less than sessions do, so these are larger than those of
    sessions.
    """

    d_z: float
    d_z_low: float
    d_z_high: float
    hedges_g: float
    hedges_g_low: float
    hedges_g_high: float
    unit: str = "patients' mean differences"


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


TAIL = 9.0
"""Standard deviations beyond which a normal distribution has less than 1e-18."""

QUANTILES = (0.0, 1e-16, 1e-8, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999, 1 - 1e-8, 1 - 1e-16)
"""Of the SD of a sample: between two of them its distribution is smooth enough for a rule of sixteen nodes."""

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


def noncentral_t_cdf(t: float, df: int, noncentrality: float) -> float:
    """Return the probability that a noncentral t variable with ``df`` (1 at least) is at most ``t`` (all finite).

    scipy's gives NaN in parts of what is needed here (two patients who differ by nearly the same). This one is the
    definition, ``P(Z + noncentrality <= t S)``, integrated over the normal Z with Gauss's rule between break points
    that follow both distributions. It agrees with mpmath to 1e-14 up to ``t`` of 1e5.
    """
    if t < 0:
        return 1.0 - noncentral_t_cdf(-t, df, -noncentrality)
    below_zero = float(special.ndtr(-noncentrality))
    lowest = max(-noncentrality, -TAIL)
    if t == 0 or lowest >= TAIL:
        return below_zero
    sample_sd = np.sqrt(special.chdtri(df, 1 - np.array(QUANTILES)) / df)
    breaks = np.concatenate([np.linspace(-TAIL, TAIL, 19), t * sample_sd - noncentrality])
    edges = np.unique(np.clip(breaks, lowest, TAIL))
    half = np.diff(edges)[:, None] / 2
    z = edges[:-1, None] + half * (1 + NODES)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    reached = special.chdtrc(df, df * ((z + noncentrality) / t) ** 2)
    return below_zero + float((half * WEIGHTS * density * reached).sum())


def _noncentrality(t: float, df: int, probability: float) -> float:
    """Return the noncentrality with which a value up to ``t`` has this ``probability``."""

    def excess(noncentrality: float) -> float:
        return noncentral_t_cdf(t, df, noncentrality) - probability

    # The probability falls with the noncentrality.
    low, high, step = t, t, 0.5
    while excess(low) < 0:
        low, step = low - step, step * 2
    step = 0.5
    while excess(high) > 0:
        high, step = high + step, step * 2
    return float(optimize.brentq(excess, low, high)) if low < high else low
