"""Test of whether tuning changes the bases by different amounts, with the patient as the unit.

Each patient has a gain (tuned − reference) with each base. The test is on the vectors of a patient's gains minus the
gain with the first base: Hotelling's T² (1931), which assumes no form of their covariance. A likelihood-ratio test of
base × variant in a mixed model without patient-by-base effects would treat sessions as independent, and reject far too
often with few patients; it is not reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cbtrain.eval.analysis.agreement.severity import judged_means
from cbtrain.eval.analysis.contrast_plan import Plan
from cbtrain.eval.analysis.contrasts import paired_differences
from cbtrain.eval.analysis.effects import t_interval
from cbtrain.eval.analysis.hotelling import hotelling_f
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.rounding import alike, size_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """``statistic``: F with ``df`` degrees of freedom, over the ``patients`` who have pairs with every base; it and
    ``p`` are NaN if ``problem`` is not empty.

    ``sizes``: by base, its mean gain minus that of ``reference``, in points. ``intervals``: their 95 % t intervals; a
    base without one differs by the same amount with all patients, or has one patient only.
    """

    statistic: float
    df: tuple[int, int]
    p: float
    patients: int
    reference: str
    sizes: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    problem: str


def interaction(ratings: Ratings, plans: list[Plan]) -> Interaction | None:
    """Return the test over the bases of the ``tuning`` contrasts in ``plans``; None if there are fewer than two."""
    gains = _gains(ratings, [plan for plan in plans if plan.family == "tuning"])
    if len(gains) < 2:
        return None
    reference, *others = gains
    patients = sorted(set.intersection(*(set(by_patient) for by_patient in gains.values())))
    n, k = len(patients), len(others)
    differences = np.array(
        [[gains[base][patient] - gains[reference][patient] for base in others] for patient in patients]
    ).reshape(n, k)
    size = size_of(ratings.total)
    by_base = dict(zip(others, differences.T, strict=True))
    intervals = {base: _interval(values) for base, values in by_base.items() if n > 1 and not alike(values, size)}
    untested = Interaction(
        statistic=math.nan,
        df=(k, max(n - k, 0)),
        p=math.nan,
        patients=n,
        reference=reference,
        sizes={base: float(values.mean()) for base, values in by_base.items()} if n else {},
        intervals=intervals,
        problem="",
    )
    if n <= k:
        problem = f"{n} patients have pairs with every base, and the test needs at least {k + 1}"
        return replace(untested, problem=problem)
    found = hotelling_f(differences, size) if len(intervals) == k else None
    if found is None:
        return replace(untested, problem="the patients' differences do not vary enough")
    statistic, p = found
    return replace(untested, statistic=statistic, p=p)


def _gains(ratings: Ratings, changes: Sequence[Plan]) -> dict[str, dict[str, float]]:
    """Return each patient's mean gain by base, in the order of ``changes``."""
    bases = [plan.id.rpartition(":")[0] for plan in changes]
    if "" in bases or len(set(bases)) < len(bases):  # a plan names no base, or a base has two tuned variants
        bases = [plan.id for plan in changes]
    judged = judged_means(ratings, ratings.total)
    gains = {}
    for base, plan in zip(bases, changes, strict=True):
        differences, _ = paired_differences(judged, plan)
        gains[base] = {patient: float(values.mean()) for patient, values in differences.items()}
    return gains


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % t interval of the mean of ``values``, float ``[patients]``."""
    found = t_interval(values, float(values.mean()))
    return found.low, found.high
