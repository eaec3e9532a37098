"""Thinking × objective, within patients: the six arms are three objectives (instruct, ORPO, SFT), each with and without
a "Thinking:" part. The study tests pairs of arms only, which says nothing of whether thinking helps one objective more.

It is a test of six adapters and prompts, one training each; it is not a test of objectives in general: SFT and ORPO of
this study also differ in rate, schedule, batch and mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.analysis.hotelling import hotelling_f
from cbtrain.eval.analysis.rounding import size_of
from cbtrain.eval.analysis.tahir2025.paired import Paired, adjusted, paired

OBJECTIVES = ("instruct", "ORPO", "SFT")
"""In the order of the arms' columns: thinking, then plain, of each."""


@dataclass(frozen=True, slots=True)
class FTest:
    """Hotelling's T² over the patients as F with ``df`` degrees of freedom; NaN where patients do not vary enough."""

    name: str
    statistic: float
    df: tuple[int, int]
    p: float


@dataclass(frozen=True, slots=True)
class Factors:
    """``tests``: of both main effects and of the interaction. ``thinking``: with − without, for each objective and over
    all, in points; ``differences``: those between objectives. p is adjusted within each list (Holm)."""

    tests: list[FTest]
    thinking: list[Paired]
    differences: list[Paired]


def factorial(scores: np.ndarray) -> Factors:
    """Return the tests of ``scores``, float ``[patients, 6]``, the columns as :data:`OBJECTIVES` says."""
    size = size_of(scores)
    gains = scores[:, 0::2] - scores[:, 1::2]
    levels = (scores[:, 0::2] + scores[:, 1::2]) / 2
    first, *others = OBJECTIVES
    return Factors(
        tests=[
            _test("thinking", gains.mean(axis=1, keepdims=True), size),
            _test("objective", levels[:, 1:] - levels[:, :1], size),
            _test("thinking × objective", gains[:, 1:] - gains[:, :1], size),
        ],
        thinking=adjusted(
            [
                *(paired(f"{name}: thinking − plain", gains[:, i], size) for i, name in enumerate(OBJECTIVES)),
                paired("all objectives: thinking − plain", gains.mean(axis=1), size),
            ]
        ),
        differences=adjusted(
            [
                paired(f"gain by thinking: {name} − {first}", gains[:, i] - gains[:, 0], size)
                for i, name in enumerate(others, start=1)
            ]
        ),
    )


def _test(name: str, differences: np.ndarray, size: float) -> FTest:
    """Return the test of whether the means of ``differences`` (float ``[patients, k]``) are all 0."""
    n, k = differences.shape
    df = (k, max(n - k, 0))
    statistic, p = (hotelling_f(differences, size) if n > k else None) or (math.nan, math.nan)
    return FTest(name, statistic, df, p)
