"""Differences between arms with the patient as the unit. The study's model gives all differences one standard error;
here each has its own, from the patients' differences, and an effect size beside it.

It is another estimate of the error, not of the difference: every patient has every arm, so both means are the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cbtrain.eval.analysis.effects import t_interval
from cbtrain.eval.analysis.resampling import holm
from cbtrain.eval.analysis.rounding import alike, size_of
from cbtrain.eval.analysis.tahir2025.published import pair_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A mean of the patients' differences, in points, with a 95 % t interval and t test; ``d_z``: divided by their SD.
    ``p_adjusted``: Holm over the rows of one table. NaN where all patients differ by the same amount."""

    name: str
    estimate: float
    se: float
    ci_low: float
    ci_high: float
    p: float
    d_z: float
    p_adjusted: float = math.nan


def paired_contrasts(scores: np.ndarray, arms: Sequence[str]) -> list[Paired]:
    """Return all differences of two arms, the first minus the second. ``scores``: float ``[patients, arms]``."""
    pairs = itertools.combinations(range(len(arms)), 2)
    size = size_of(scores)
    return adjusted([paired(pair_name(arms, i, j), scores[:, i] - scores[:, j], size) for i, j in pairs])


def paired(name: str, differences: np.ndarray, size: float) -> Paired:
    """Return the mean of ``differences``, float ``[patients]`` (at least two). ``size``: the largest score that was
    subtracted, by which differences are told from rounding."""
    estimate = float(differences.mean())
    if alike(differences, size):
        gap = math.nan
        return Paired(name=name, estimate=estimate, se=0.0, ci_low=gap, ci_high=gap, p=gap, d_z=gap)
    t = t_interval(differences, estimate)
    d_z = estimate / float(differences.std(ddof=1))
    return Paired(name=name, estimate=estimate, se=t.se, ci_low=t.low, ci_high=t.high, p=t.p, d_z=d_z)


def adjusted(rows: Sequence[Paired]) -> list[Paired]:
    """Return ``rows`` with p adjusted over all of them (Holm 1979)."""
    return [replace(row, p_adjusted=p) for row, p in zip(rows, holm([row.p for row in rows]), strict=True)]
