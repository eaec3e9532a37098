"""The analysis of the 2025 study's scores under its keys in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cbtrain.eval.analysis.tahir2025.factors import factorial
from cbtrain.eval.analysis.tahir2025.length import CAP, words_analysis
from cbtrain.eval.analysis.tahir2025.moderators import moderation
from cbtrain.eval.analysis.tahir2025.paired import paired_contrasts
from cbtrain.eval.analysis.tahir2025.published import PublishedModel, published_model
from cbtrain.eval.analysis.tahir2025.scores import OUTCOMES, SUBSCALES, StudyScores

METHOD = (
    "total ~ arm, random intercept by patient, restricted maximum likelihood, Wald intervals; Holm–Šidák over the "
    "fifteen differences of two arms, as published"
)

WHAT: Mapping[str, str] = {
    "published": "A reproduction. The model gives every difference one standard error, and the sessions of a patient "
    "one correlation.",
    "paired": "The same differences by patient, each with its own standard error; Holm over the fifteen. One training "
    "and one dialogue stand behind each arm and patient: intervals are over patients, not over trainings.",
    "factors": "Thinking × objective within patients (Hotelling). It compares these six trainings; SFT and ORPO also "
    "differ in learning rate, schedule, batch and in which tokens the loss counts.",
    "length": "A sensitivity check: words of a dialogue follow from what a therapist was trained to do, so holding "
    "them equal takes away a part of the effect. Words and turns are those of the table, for all arms and patients.",
    "moderators": "Two columns and three gains, chosen before the figures were seen; p by permuted patients, Holm "
    "over the six. An archetype is a style and a level of mindedness in one; patients are texts for a language model.",
    "subscales": "Means of all parts of ACT-FM; the study tests the sum of the consistent ones only.",
}
"""What each part is, and what it is not."""


def study_analysis(
    scores: StudyScores, levels: Mapping[str, Sequence[str]] | None, *, draws: int, seed: int
) -> dict[str, Any]:
    """Return the results. ``levels``: of the patients by column (None: not known). ``draws`` and ``seed``: of the
    bootstrap and of permutations. Raises ValueError if totals leave nothing to model."""
    words, turns = scores.columns["word_count"], scores.columns["turn_count"]
    outcomes = {}
    for key, outcome in OUTCOMES.items():
        totals = scores.outcome(key)
        outcomes[key] = {
            "name": outcome.name,
            "column": outcome.column,
            "min": outcome.low,
            "max": outcome.high,
            "published": _published(published_model(key, totals, scores.arms)) if outcome.published else None,
            "paired": [asdict(row) for row in paired_contrasts(totals, scores.arms)],
            "factors": asdict(factorial(totals)),
            "length": asdict(words_analysis(totals, words, turns, scores.arms, draws=draws, seed=seed)),
            "moderators": [asdict(row) for row in moderation(totals, levels, seed)] if levels else [],
        }
    return {
        "method": METHOD,
        "what": dict(WHAT),
        "cap": CAP,
        "bootstrap": {"draws": draws, "seed": seed},
        "outcomes": outcomes,
        "subscales": [_subscale(name, scores.columns[name], scores.arms) for name in SUBSCALES],
    }


def _published(model: PublishedModel) -> dict[str, Any]:
    fit = model.fit
    return {
        "groups": [asdict(group) for group in model.groups],
        "log_likelihood": fit.log_likelihood,
        "scale": fit.scale,
        "patient_variance": fit.patient_variance,
        "patient_variance_se": fit.patient_variance_se,
        "patient_variance_se_as_printed": model.patient_variance_se_as_printed,
        "stopped": asdict(model.stopped) if model.stopped else None,
        "n": fit.patients * len(fit.means),
        "patients": fit.patients,
        "fixed_effects": [asdict(row) for row in model.coefficients],
        "contrasts": [asdict(row) for row in model.contrasts],
        "problem": fit.problem,
    }


def _subscale(name: str, values: np.ndarray, arms: Sequence[str]) -> dict[str, Any]:
    means, sds = values.mean(axis=0).tolist(), values.std(axis=0, ddof=1).tolist()
    return {"name": name, "means": dict(zip(arms, means, strict=True)), "sds": dict(zip(arms, sds, strict=True))}
