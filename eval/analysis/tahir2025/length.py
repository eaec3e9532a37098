"""Words of a dialogue, the cap on its turns, and what is left of the differences at equal length.

In this study longer dialogues have lower totals over all arms; in the 2024 study longer sessions had higher ones.
Whether that is so for dialogues of one patient and arm is another question: the correlation *within* is that of what
arms and patients leave of both. A model with ln(words) as a covariate holds length equal. It is a sensitivity check and
no better estimate: length follows from what the therapist was trained to do, so holding it equal takes away a part of
the effect.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cbtrain.eval.analysis.mixed_models.random_intercept import Term, wald
from cbtrain.eval.analysis.mixed_models.reml import RemlFit, fit_reml
from cbtrain.eval.analysis.resampling import percentile_interval
from cbtrain.eval.analysis.rounding import alike
from cbtrain.eval.analysis.tahir2025.published import pair_name

CAP = 51
"""Turns of a dialogue that reaches the study's limit: 25 of the therapist between 26 of the patient."""

MOST_DRAWS = 10_000
"""Resamples of a correlation at most; more change no digit that is printed."""


@dataclass(frozen=True, slots=True)
class ArmWords:
    """``words``: mean and SD (n − 1) of the words of an arm's dialogues, labels of speakers included, as the table
    counts them. ``at_cap``: dialogues of at least :data:`CAP` turns; ``share``: of all. ``correlation``: Pearson's of
    words and total within the arm, NaN if one of them does not vary."""

    name: str
    dialogues: int
    words_mean: float
    words_sd: float
    at_cap: int
    share: float
    correlation: float


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's correlation of words and total, with a 95 % percentile interval from resampled patients."""

    name: str
    r: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True)
class WordsAnalysis:
    """``slope``: points for a dialogue of twice the words (ln 2), of patient and arm; ``adjusted``: all differences of
    two arms at equal length. None and empty if ``problem`` says why there is no model."""

    arms: list[ArmWords]
    correlations: list[Correlation]
    slope: Term | None
    adjusted: list[Term]
    problem: str


def words_analysis(
    scores: np.ndarray, words: np.ndarray, turns: np.ndarray, arms: Sequence[str], *, draws: int, seed: int
) -> WordsAnalysis:
    """Return the analysis of ``scores``, ``words`` and ``turns``, float ``[patients, arms]`` each. ``draws`` and
    ``seed``: of the bootstrap."""
    counted = [_arm(arm, scores[:, i], words[:, i], turns[:, i]) for i, arm in enumerate(arms)]
    by_name = {"over all dialogues": (scores, words), "within patients and arms": (_left(scores), _left(words))}
    correlations = [_correlation(name, *pair, draws, seed) for name, pair in by_name.items()]
    try:
        fit = _model(scores, words, arms)
    except (ValueError, np.linalg.LinAlgError) as error:
        return WordsAnalysis(counted, correlations, None, [], f"no model with words could be fitted ({error})")
    slope = fit.terms[-1]
    doubled = wald("twice the words", slope.estimate * math.log(2), slope.se * math.log(2))
    pairs = itertools.combinations(range(len(arms)), 2)
    return WordsAnalysis(counted, correlations, doubled, [_difference(fit, arms, i, j) for i, j in pairs], fit.problem)


def _arm(name: str, scores: np.ndarray, words: np.ndarray, turns: np.ndarray) -> ArmWords:
    at_cap = int((turns >= CAP).sum())
    mean, sd = float(words.mean()), float(words.std(ddof=1))
    return ArmWords(name, len(words), mean, sd, at_cap, at_cap / len(words), _pearson(scores, words))


def _left(values: np.ndarray) -> np.ndarray:
    """Return what the means of patients and of arms leave of ``values``, float64 ``[patients, arms]``."""
    by_patient, by_arm = values.mean(axis=1, keepdims=True), values.mean(axis=0)
    return np.asarray(values - by_patient - by_arm + values.mean())


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of all values of both; NaN if one of them does not vary."""
    if alike(first, 1.0) or alike(second, 1.0):
        return math.nan
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _correlation(name: str, scores: np.ndarray, words: np.ndarray, draws: int, seed: int) -> Correlation:
    r, n = _pearson(scores, words), len(scores)
    if not math.isfinite(r):
        return Correlation(name, r, math.nan, math.nan)
    first, second = (values - values.mean() for values in (scores, words))
    sums = np.stack([part.sum(axis=1) for part in (first, second, first**2, second**2, first * second)], axis=1)
    x, y, xx, yy, xy = (_drawn(n, min(draws, MOST_DRAWS), seed) @ sums / scores.size).T
    variances = (xx - x**2) * (yy - y**2)
    varied = variances > 0
    found = (xy - x * y)[varied] / np.sqrt(variances[varied])
    low, high = percentile_interval(found) if len(found) else (math.nan, math.nan)
    return Correlation(name, r, low, high)


@lru_cache(maxsize=1)
def _drawn(patients: int, draws: int, seed: int) -> np.ndarray:
    """Return how often each patient is in each resample, float64 ``[draws, patients]``."""
    chances = np.full(patients, 1 / patients)
    return np.random.default_rng(seed).multinomial(patients, chances, size=draws).astype(np.float64)


def _model(scores: np.ndarray, words: np.ndarray, arms: Sequence[str]) -> RemlFit:
    """Return the fit of ``total ~ arm + ln(words) + (1 | patient)``: a coefficient for each arm, then that of
    ln(words). Raises ValueError where there is nothing to fit."""
    patients, count = scores.shape
    arm = np.tile(np.arange(count), patients)
    logs = np.log(words).ravel()
    design = np.column_stack([np.eye(count)[arm], logs - logs.mean()])
    fit = fit_reml(scores.ravel(), design, [*arms, "ln(words)"], np.repeat(np.arange(patients), count), arm)
    if not fit.converged:
        raise ValueError(fit.problem)
    return fit


def _difference(fit: RemlFit, arms: Sequence[str], first: int, second: int) -> Term:
    estimate = fit.terms[first].estimate - fit.terms[second].estimate
    variance = fit.covariance[first, first] + fit.covariance[second, second] - 2 * fit.covariance[first, second]
    return wald(pair_name(arms, first, second), estimate, math.sqrt(float(variance)))
