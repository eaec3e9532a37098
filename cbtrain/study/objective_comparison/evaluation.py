"""The evaluation of all arms: the same patients, seeds and judges for each trained model and the base."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.config.sources import Layer
from cbtrain.eval.analysis.agreement.panel import panel_of, panel_ratings
from cbtrain.eval.analysis.agreement.severity import session_means
from cbtrain.eval.analysis.contrast_plan import Plan
from cbtrain.eval.analysis.contrasts import Contrast, compare
from cbtrain.eval.analysis.effects import t_interval
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.study.evaluation.evaluate import evaluate_study
from cbtrain.study.evaluation.scores import load_scores
from cbtrain.study.objective_comparison.arms import CONTRASTS, PROMPTED, UNTUNED
from cbtrain.study.objective_comparison.candidates import Comparison
from cbtrain.study.objective_comparison.comparison_file import reading
from cbtrain.study.objective_comparison.run import RunPlan, adapter_of

FAMILY = "objectives"


@dataclass(frozen=True, slots=True)
class ArmScore:
    """Mean over patients of an arm's totals, with a 95 % t interval if there are several ``patients``."""

    mean: float
    low: float | None
    high: float | None
    patients: int
    sessions: int


def therapist_name(arm: str, seed: int | None = None) -> str:
    """Return what a trained model is called in the evaluation; an arm that is not tuned has no seed."""
    return arm if seed is None else f"{arm}-seed-{seed}"


def evaluation_config(
    comparison: Comparison, finals: Sequence[RunPlan], runs: Path, patients: Path | None, patient: Path | None
) -> StudyConfig:
    """Return the settings of the evaluation of ``finals``. ``patients``: a folder of held-out ones, None if the study
    names them; ``patient``: the adapter that plays them, None if the study says who does."""
    base = str(comparison.base)
    therapists: dict[str, Any] = {UNTUNED: {"model": base}}
    if PROMPTED in comparison.file.arms:
        therapists[PROMPTED] = {"model": base, "prompt": comparison.file.prompt, "variant": PROMPTED}
        therapists[PROMPTED] |= {"reference": UNTUNED}
    for plan in finals:
        named = {"base": f"seed {plan.seed}", "variant": plan.arm, "reference": UNTUNED}
        adapter = str(adapter_of(runs, plan).resolve())
        therapists[therapist_name(plan.arm, plan.seed)] = {"model": base, "adapter": adapter, **named}
    evaluation: dict[str, Any] = {"therapists": therapists}
    if patient is not None:
        evaluation["patient_model"] = {"model": base, "adapter": str(patient)}
    config = comparison.file.study(Layer("the comparison", {"model": {"path": base}, "evaluation": evaluation}))
    if patients is None:
        return config
    return config.model_copy(update={"corpus": reading(config, str(patients), format="cbtrain")})


def evaluate(config: StudyConfig, folder: Path, console: Console, *, allow_upload: bool) -> None:
    """Hold and score all sessions in ``folder``, where an interrupted evaluation continues. Raises UserError as
    :func:`~cbtrain.study.evaluation.evaluate.evaluate_study`."""
    asyncio.run(evaluate_study(config, folder, console, allow_upload=allow_upload))


def scored(folder: Path, finals: Sequence[RunPlan], arms: Sequence[str]) -> tuple[dict[str, ArmScore], list[Contrast]]:
    """Return the score of each arm over its seeds, and the planned contrasts, from the evaluation in ``folder``."""
    study = load_scores([folder])
    panel = panel_of(study.ratings, study.primary_judges, rotating=study.rotating)
    ratings = panel_ratings(study.ratings, panel)
    names = {arm: _names(arm, finals) for arm in arms}
    scores = {arm: found for arm, of in names.items() if (found := _score(ratings, of)) is not None}
    return scores, compare(ratings, planned(finals, arms), ratings.total)


def planned(finals: Sequence[RunPlan], arms: Sequence[str]) -> list[Plan]:
    """Return the contrasts of the arms that are there; seeds that both have are averaged within each patient."""
    plans = []
    for a, b in CONTRASTS:
        if a in arms and b in arms:
            of_b = dict(_seeds(b, finals))
            pairs = [(name, of_b.get(seed) or of_b.get(None)) for seed, name in _seeds(a, finals)]
            there = tuple((first, second) for first, second in pairs if second)
            if there:
                plans.append(Plan(f"{a} − {b}", FAMILY, there))
    return plans


def _seeds(arm: str, finals: Sequence[RunPlan]) -> list[tuple[int | None, str]]:
    if arm in (UNTUNED, PROMPTED):
        return [(None, therapist_name(arm))]
    return [(plan.seed, therapist_name(arm, plan.seed)) for plan in finals if plan.arm == arm]


def _names(arm: str, finals: Sequence[RunPlan]) -> list[str]:
    return [name for _, name in _seeds(arm, finals)]


def _score(ratings: Ratings, names: Sequence[str]) -> ArmScore | None:
    by_patient: dict[str, list[float]] = {}
    for (arm, patient, _), total in session_means(ratings, ratings.total).items():
        if arm in names:
            by_patient.setdefault(patient, []).append(total)
    if not by_patient:
        return None
    means, n = np.array([np.mean(totals) for totals in by_patient.values()]), len(by_patient)
    mean, count = float(means.mean()), sum(map(len, by_patient.values()))
    if n == 1:
        return ArmScore(mean, None, None, n, count)
    interval = t_interval(means, mean)
    return ArmScore(mean, interval.low, interval.high, n, count)
