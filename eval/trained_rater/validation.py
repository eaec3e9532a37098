"""How well a trained rater ranks sessions of patients, and of arms, that its fit has not seen; beside simpler things.

Every number is out of fold: standardization, choice of the penalty and fit see the other patients (or arms) only. The
choice always leaves out patients, as that of the final fit does. Correlations over all sessions contain differences
between arms, which are easier to see than differences between sessions of one arm: those are the column *within arms*.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np

from cbtrain.eval.trained_rater.examples import Examples, Instrument
from cbtrain.eval.trained_rater.rank_correlation import interval, spearman, within_groups
from cbtrain.eval.trained_rater.ridge import OUTER, fit_with_choice, folds_of

DRAWS = 1000

TOTAL = "total"

PREDICTORS: Mapping[str, str] = {
    "patients": "rater, patients left out",
    "arms": "rater, arms left out",
    "both": "rater, both left out at once",
    "length": "length alone: ln(turns)",
    "arm_mean": "mean of the arm",
    "cue": "cue rater",
    "patients_of_cue": "rater, on its sessions",
    "length_of_cue": "length, on its sessions",
}
"""What is compared with the scores, and its name in tables. ``arm_mean``: over other patients; it needs no transcript.
``patients_of_cue``, ``length_of_cue``: on the sessions that the cue rater rates."""


LEFT_OUT = ("patients", "arms", "both")


def validate(examples: Examples, instrument: Instrument, seed: int = 0) -> list[dict[str, Any]]:
    """Return one row for each score (the total, then the items) and predictor: ``sessions``, ``r`` (Spearman's) with
    the bootstrap interval ``ci_low`` to ``ci_high`` over patients, ``within_arms``, and of the rater ``r2`` (1 less
    squared errors ÷ variance) and ``slope`` (of scores on predictions: below 1 if predictions are too far apart). None
    where a number cannot be computed."""
    given = _with_total(examples.scores, instrument)
    rows = []
    for name, predicted in _predictions(examples, instrument):
        known = np.isfinite(predicted).all(axis=1)
        for place, score in enumerate((TOTAL, *instrument.items)):
            x, y = predicted[known, place], given[known, place]
            low, high = interval(x, y, examples.patient[known], DRAWS, seed)
            numbers = {
                "r": spearman(x, y),
                "ci_low": low,
                "ci_high": high,
                "within_arms": within_groups(x, y, examples.arm[known]),
                **(_calibration(x, y) if name in LEFT_OUT else {}),
            }
            finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
            rows.append({"score": score, "predictor": name, "sessions": int(known.sum()), **finite})
    return sorted(rows, key=lambda row: (TOTAL, *instrument.items).index(row["score"]))


def out_of_fold(examples: Examples, instrument: Instrument, *left_out: np.ndarray) -> np.ndarray:
    """Return the scores, float64 ``[rows, items]``, that fits without the groups of a session give it. ``left_out``:
    the groups, str ``[rows]``; of two, sessions that share either with a session are left out of its fit."""
    predicted = np.full(examples.scores.shape, np.nan)
    for folds in product(*(folds_of(groups, OUTER) for groups in left_out)):
        out, seen = np.logical_and.reduce(folds), ~np.logical_or.reduce(folds)
        if out.any() and seen.any():
            fit = fit_with_choice(examples.features[seen], examples.scores[seen], examples.patient[seen])
            predicted[out] = instrument.clipped(fit.predict(examples.features[out]))
    return predicted


def _predictions(examples: Examples, instrument: Instrument) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each of :data:`PREDICTORS` that there is with its total and items, float64 ``[rows, 1 + items]``; NaN for
    sessions of which it says nothing."""
    by_patient = _with_total(out_of_fold(examples, instrument, examples.patient), instrument)
    yield "patients", by_patient
    if len(set(examples.arm)) > 1:
        yield "arms", _with_total(out_of_fold(examples, instrument, examples.arm), instrument)
        yield "both", _with_total(out_of_fold(examples, instrument, examples.patient, examples.arm), instrument)
    length = np.repeat(np.log(examples.turns)[:, None], by_patient.shape[1], axis=1)
    yield "length", length
    if examples.cue is not None:
        rated = np.isfinite(examples.cue).all(axis=1)
        yield "cue", _with_total(examples.cue, instrument)
        yield "patients_of_cue", np.where(rated[:, None], by_patient, np.nan)
        yield "length_of_cue", np.where(rated[:, None], length, np.nan)
    if len(set(examples.arm)) > 1:
        yield "arm_mean", _with_total(_arm_means(examples), instrument)


def _arm_means(examples: Examples) -> np.ndarray:
    """Return, of each session, the mean scores of its arm over other patients, float64 ``[rows, items]``; NaN where
    there are none."""
    means = np.full(examples.scores.shape, np.nan)
    for out in folds_of(examples.patient, OUTER):
        for arm in np.unique(examples.arm[out]):
            others = examples.scores[~out & (examples.arm == arm)]
            if len(others):
                means[out & (examples.arm == arm)] = others.mean(axis=0)
    return means


def _with_total(scores: np.ndarray, instrument: Instrument) -> np.ndarray:
    return np.column_stack([instrument.totals(scores), scores])


def _calibration(predicted: np.ndarray, given: np.ndarray) -> dict[str, float]:
    spread, variance = predicted - predicted.mean(), float(((given - given.mean()) ** 2).sum())
    wide = float((spread**2).sum())
    return {
        "r2": 1 - float(((given - predicted) ** 2).sum()) / variance if variance > 0 else math.nan,
        "slope": float((spread * given).sum()) / wide if wide > 1e-12 else math.nan,
    }
