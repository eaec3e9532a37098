"""Effect sizes of paired differences, with intervals from the noncentral t distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from cbtrain.eval.analysis.rounding import alike


@dataclass(frozen=True, slots=True)
class PairedEffect:
    """Effect sizes with 95 % intervals; NaN if the differences do not vary.

    ``d_z``: mean difference divided by the SD of the differences (Cohen 1988). ``hedges_g``: the same, corrected for
    its bias in small samples (Hedges 1981); NaN for two patients. ``unit``: the unit of analysis. Patients' means vary
    less than sessions, so these effect sizes are larger than those of sessions.
    """

    d_z: float
    d_z_low: float
    d_z_high: float
    hedges_g: float
    hedges_g_low: float
    hedges_g_high: float
    unit: str = "patients' mean differences"


def paired_effect(differences: np.ndarray, level: float = 0.95, size: float = 0.0) -> PairedEffect:
    """Return the effect sizes of ``differences`` (float ``[patients]``, in points), with intervals of this ``level``.
    ``size``: largest score that was subtracted (:func:`cbtrain.eval.analysis.rounding.alike`). Raises ValueError on
    fewer than two patients."""
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n < 2:
        raise ValueError("an effect size needs two patients")
    if alike(values, size):
        nan = math.nan
        return PairedEffect(nan, nan, nan, nan, nan, nan)
    d = float(values.mean() / values.std(ddof=1))
    t, df = d * math.sqrt(n), n - 1
    low = _noncentrality(t, df, (1 + level) / 2) / math.sqrt(n)
    high = _noncentrality(t, df, (1 - level) / 2) / math.sqrt(n)
    correction = (
        math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else math.nan
    )
    return PairedEffect(d, low, high, d * correction, low * correction, high * correction)


@dataclass(frozen=True, slots=True)
class TInterval:
    """Standard error of a mean, its 95 % t interval, and the two-sided p of the t test against 0."""

    se: float
    low: float
    high: float
    p: float


def t_interval(values: np.ndarray, estimate: float) -> TInterval:
    """Return the interval around ``estimate``, the mean of ``values`` (float ``[n]``, two or more); p is NaN if they do
    not vary."""
    n = len(values)
    se = float(values.std(ddof=1) / math.sqrt(n))
    margin = float(stats.t.ppf(0.975, n - 1)) * se
    p = float(2 * stats.t.sf(abs(estimate) / se, n - 1)) if se else math.nan
    return TInterval(se, estimate - margin, estimate + margin, p)


TAIL = 9.0
"""SDs from the mean beyond which a normal distribution has a probability below 1e-18."""

QUANTILES = (0.0, 1e-16, 1e-8, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999, 1 - 1e-8, 1 - 1e-16)
"""Quantiles of the sample SD's distribution, used as break points: between two of them a Gauss rule with sixteen nodes
is exact enough."""

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


def noncentral_t_cdf(t: float, df: int, noncentrality: float) -> float:
    """Return the probability that a noncentral t variable with ``df`` (at least 1) is at most ``t``. All arguments are
    finite.

    scipy's function returns NaN for some arguments that occur here (two patients with nearly the same difference).
    This one integrates the definition, ``P(Z + noncentrality <= t S)``, over the normal Z by Gauss-Legendre quadrature
    between break points that follow the distributions of Z and S. It agrees with mpmath to 1e-14 up to ``t`` of 1e5.
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
    probability_given_z = special.chdtrc(df, df * ((z + noncentrality) / t) ** 2)
    return below_zero + float((half * WEIGHTS * density * probability_given_z).sum())


def _noncentrality(t: float, df: int, probability: float) -> float:
    """Return the noncentrality for which :func:`noncentral_t_cdf` at ``t`` is ``probability``."""

    def excess(noncentrality: float) -> float:
        return noncentral_t_cdf(t, df, noncentrality) - probability

    # The probability falls as the noncentrality rises: widen the bracket in growing steps until it contains the root.
    low, high, step = t, t, 0.5
    while excess(low) < 0:
        low, step = low - step, step * 2
    step = 0.5
    while excess(high) > 0:
        high, step = high + step, step * 2
    return float(optimize.brentq(excess, low, high)) if low < high else low
