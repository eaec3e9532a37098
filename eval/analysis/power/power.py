"""How many patients show an effect: power of the paired comparison, with the patient as the unit.

Every patient talks to both arms in the same number of sessions (seeds), and every session is rated the same number of
times. The analysis (:mod:`cbtrain.eval.analysis.contrasts`) takes each patient's mean difference and a t test over
patients. The variance of such a difference is

    between² + 2 · (within² + repeat² / repeats) / seeds

``between``: SD of the patients' true differences (patient × condition); ``within``: SD of one patient's sessions with
one arm, as if each were rated without noise; ``repeat``: SD of repeated ratings of one session. The factor 2 is there
because both arms have such sessions.
"""

from __future__ import annotations

import math

from scipy import optimize, stats

from cbtrain.eval.analysis.effects import noncentral_t_cdf

MOST_PATIENTS = 10_000
"""More patients than anybody simulates: what needs more is not reached."""


LARGEST = 1e6
"""Effect in SDs from which on the power is 1 with two patients, to all digits that count."""

LEAST_ALPHA, MOST_POWER = 1e-4, 0.999
"""Between these the power is compared with other programs, from 2 to 10,000 patients."""


def variance_of_difference(between: float, within: float, repeat: float, seeds: int, repeats: int = 1) -> float:
    """Return the variance of a patient's mean difference between two arms; SDs in points."""
    return between**2 + 2 * (within**2 + repeat**2 / repeats) / seeds


def power_of(patients: int, effect: float, sd: float, alpha: float = 0.05) -> float:
    """Return the power of the two-sided one-sample t test over ``patients`` (two at least) differences with mean
    ``effect`` and this ``sd``, exact under the normal distribution.

    Both tails of the noncentral t count.
    """
    if effect == 0:
        return alpha
    df, noncentrality = patients - 1, math.sqrt(patients) * min(effect / sd, LARGEST)
    critical = float(stats.t.isf(alpha / 2, df))
    between = noncentral_t_cdf(critical, df, noncentrality) - noncentral_t_cdf(-critical, df, noncentrality)
    return 1.0 - between


def patients_needed(effect: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the fewest patients with which ``effect`` is found with this ``power``; None if ``MOST_PATIENTS`` do
    not."""
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
    """Return the smallest difference, in points, that so many patients show with this ``power`` (above ``alpha``)."""

    def excess(d_z: float) -> float:
        return power_of(patients, d_z, 1.0, alpha) - power

    high = 1.0
    while excess(high) < 0:
        high *= 2
    return sd * float(optimize.brentq(excess, 0.0, high))


def least_for_signs(alpha: float) -> int:
    """Return the fewest patients with which an exact sign-flip test can give a p of at most ``alpha``: its smallest
    is 2 / 2ⁿ."""
    return math.ceil(1 - math.log2(alpha))
