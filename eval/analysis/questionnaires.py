"""The patients' own answers after their sessions: sub-scales by arm, and the planned contrasts of each.

They are no ratings: a language model that plays the patient has given them. They have a part of their own in the
analysis, and Holm's adjustment of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.contrasts import compare, with_holm
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.simulation.after_session import Answers
from cbtrain.eval.simulation.runner import SimulatedSession

PATIENTS = "the simulated patients"
"""In the place of a judge's name in the table of answers."""


def answers_table(answers: Answers, sessions: Iterable[SimulatedSession], arms: Mapping[str, Arm]) -> Ratings:
    """Return the sub-scale means of ``sessions`` as a table with a row for each one whose questionnaire is filled in,
    and the sub-scales as items. It has no scale: that of one sub-scale may differ from that of another."""
    names = tuple(answers.questionnaire.subscales)
    rows = []
    for session in sessions:
        filled = answers.filled.get(session.id)
        if filled is not None and filled.answers is not None and session.arm in arms and not session.failed:
            rows.append((session, answers.questionnaire.means(filled.answers)))
    return Ratings(
        item_names=names,
        arms=dict(arms),
        arm=np.array([session.arm for session, _ in rows]),
        patient=np.array([session.patient for session, _ in rows]),
        session=np.array([session.slot for session, _ in rows], dtype=np.int64),
        number=np.array([session.number for session, _ in rows], dtype=np.int64),
        simulator=np.array([session.simulator for session, _ in rows], dtype=np.str_),
        judge=np.full(len(rows), PATIENTS),
        repeat=np.zeros(len(rows), dtype=np.int64),
        status=np.full(len(rows), "ok"),
        items=np.array([[means[name] for name in names] for _, means in rows], dtype=np.float64).reshape(
            -1, len(names)
        ),
    )


def questionnaire_analysis(
    answers: Answers,
    sessions: Sequence[SimulatedSession],
    arms: Mapping[str, Arm],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what patients answered after ``sessions`` under its keys in JSON: sub-scales by arm, and the planned
    contrasts of each. ``draws`` and ``seed``: of the bootstrap.

    p is adjusted (Holm 1979) within each family of contrasts, over all sub-scales together.
    """
    questionnaire, table = answers.questionnaire, answers_table(answers, sessions, arms)
    plans = plan_contrasts(arms)
    contrasts = [
        (name, contrast)
        for name, values in zip(table.item_names, table.items.T, strict=True)
        for contrast in (compare(table, plans, values, draws, seed) if len(table) else [])
    ]
    adjusted = with_holm([contrast for _, contrast in contrasts])
    rows = [{"subscale": name, **asdict(contrast)} for (name, _), contrast in zip(contrasts, adjusted, strict=True)]
    held = [session for session in sessions if session.ending is not None and not session.failed]
    return {
        "name": questionnaire.name,
        "note": questionnaire.note,
        "asked": len(held),
        "filled_in": len(table),
        "subscales": [
            {"id": name, "text": text, "min": questionnaire.range_of(name)[0], "max": questionnaire.range_of(name)[1]}
            for name, text in questionnaire.subscales.items()
        ],
        "items": [item.model_dump(mode="json") for item in questionnaire.items],
        "groups": [_group(table, arm, held) for arm in arms],
        "contrasts": rows,
    }


def _group(table: Ratings, arm: str, held: Sequence[SimulatedSession]) -> dict[str, Any]:
    """Return mean and SD over the sessions of ``arm`` of each sub-scale; None where there are too few."""
    values = table.items[table.arm == arm]
    n = len(values)
    means = values.mean(axis=0) if n else np.full(len(table.item_names), math.nan)
    sds = values.std(axis=0, ddof=1) if n > 1 else np.full(len(table.item_names), math.nan)
    return {
        "name": arm,
        "asked": sum(session.arm == arm for session in held),
        "n": n,
        "means": _by_name(table.item_names, means),
        "sds": _by_name(table.item_names, sds),
    }


def _by_name(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: float(value) if math.isfinite(value) else None for name, value in zip(names, values, strict=True)}
