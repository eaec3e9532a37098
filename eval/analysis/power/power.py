"""Power of the paired comparison of two arms, with the patient as the unit, and the patients it needs.

Every patient has the same number of sessions (seeds) with both arms, and every session is rated the same number of
times (repeats). The analysis (:mod:`cbtrain.eval.analysis.contrasts`) takes each patient's mean difference and a t test
over patients. The variance of such a difference is

    between² + 2 · (within² + repeat² / repeats) / seeds

``between``: SD of the patients' true differences (patient × arm); ``within``: SD of the sessions of one patient with
one arm, without the noise of ratings; ``repeat``: SD of repeated ratings of one session. The factor 2 is there because
both arms have such sessions.
"""

from __future__ import annotations

import math

from scipy import optimize, stats

from cbtrain.eval.analysis.effects import noncentral_t_cdf

MOST_PATIENTS = 10_000
"""Upper end of the search: nobody simulates more patients."""

LARGEST = 1e6
"""Largest effect in SDs that is computed; with it, the power is 1 in all printed digits even with two patients."""

LEAST_ALPHA, MOST_POWER = 1e-4, 0.999
"""Smallest alpha and largest power for which results were compared with other programs, with 2 to 10,000 patients."""


def variance_of_difference(between: float, within: float, repeat: float, seeds: int, repeats: int = 1) -> float:
    """Return the variance of a patient's mean difference between two arms, in squared points; SDs in points."""
    return between**2 + 2 * (within**2 + repeat**2 / repeats) / seeds


def power_of(patients: int, effect: float, sd: float, alpha: float = 0.05) -> float:
    """Return the power of the two-sided one-sample t test over ``patients`` (at least two) normal differences with mean
    ``effect`` and this ``sd``. Exact: both tails of the noncentral t distribution count."""
    if effect == 0:
        return alpha
    df, noncentrality = patients - 1, math.sqrt(patients) * min(effect / sd, LARGEST)
    critical = float(stats.t.isf(alpha / 2, df))
    not_rejected = noncentral_t_cdf(critical, df, noncentrality) - noncentral_t_cdf(-critical, df, noncentrality)
    return 1.0 - not_rejected


def patients_needed(effect: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the fewest patients with which the test has at least this ``power`` for ``effect``; None if
    ``MOST_PATIENTS`` are too few."""
    low, high = 1, 2
    while power_of(high, effect, sd, alpha) < power:
        if high == MOST_PATIENTS:
            return None
        low, high = high, min(2 * high, MOST_PATIENTS)
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(middle, effect, sd, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def detectable_difference(patients: int, sd: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest difference, in the unit of ``sd``, for which the test over ``patients`` has this ``power``
    (above ``alpha``)."""

    def excess(d_z: float) -> float:
        return power_of(patients, d_z, 1.0, alpha) - power

    high = 1.0
    while excess(high) < 0:
        high *= 2
    return sd * float(optimize.brentq(excess, 0.0, high))


def least_for_signs(alpha: float) -> int:
    """Return the fewest patients with which an exact sign-flip test can give a p of at most ``alpha``: with n patients,
    its smallest p is 2 / 2ⁿ."""
    return math.ceil(1 - math.log2(alpha))
