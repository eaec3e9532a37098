"""Whether three gains differ between kinds of patients: the study has patients of four archetypes and ten primary
concerns, and tells nothing of them.

Chosen before the figures were seen: two columns, three gains, p adjusted over these tests of one instrument (Holm). An
archetype of that study is a way of speaking and a level of psychological mindedness in one, so the three cannot be told
apart; and patients are texts for one language model, so a difference between kinds says nothing of people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cbtrain.errors import UserError
from cbtrain.eval.analysis.resampling import holm
from cbtrain.eval.analysis.rounding import size_of
from cbtrain.eval.analysis.tahir2025.paired import Paired, paired
from cbtrain.eval.analysis.variation import between_patients
from cbtrain.patients.case import Case
from cbtrain.patients.reading import read_cases

PATIENTS = "standardized_patient_profiles.json"
"""The study's file of patients; the session_id of a dialogue is a patient's place in it, from 1 on."""

LEAST = 2
"""Fewest patients of a level that is in a test."""

COLUMNS: Mapping[str, Callable[[Case], str]] = {
    "archetype": lambda case: str(case.demographics.get("archetype", "")),
    "primary concern": lambda case: case.symptoms[0].name,
}

GAINS: Mapping[str, tuple[float, ...]] = {
    "ORPO − instruct": (-0.5, -0.5, 0.5, 0.5, 0, 0),
    "SFT − instruct": (-0.5, -0.5, 0, 0, 0.5, 0.5),
    "thinking − plain": (1 / 3, -1 / 3, 1 / 3, -1 / 3, 1 / 3, -1 / 3),
}
"""Weights of the arms in each gain, averaged over the factor that it leaves out."""


@dataclass(frozen=True, slots=True)
class Level:
    """The mean gain of the ``patients`` of one level, with its t interval; None with one patient."""

    level: str
    patients: int
    gain: Paired | None


@dataclass(frozen=True, slots=True)
class Moderation:
    """Whether ``gain`` differs between the levels of ``column``: F with ``df``, p by permuted labels, Holm over all
    rows of one instrument. ``problem`` says why there is no test."""

    column: str
    gain: str
    levels: list[Level]
    statistic: float
    df: tuple[int, int]
    p: float
    p_adjusted: float
    problem: str


def levels_of(path: Path, patients: Sequence[str], say: Callable[[str], None]) -> dict[str, list[str]]:
    """Return for each of :data:`COLUMNS` the level of each of ``patients`` by the study's file at ``path``. ``say``
    takes what the reader guesses. Raises UserError if a patient is not in it."""
    cases = read_cases(path, say=say)
    for patient in patients:
        if not (patient.isascii() and patient.isdecimal() and 1 <= int(patient) <= len(cases)):
            hint = "A session_id is the patient's place in that file, from 1 on."
            raise UserError(f"no patient {patient}: it has {len(cases)}", where=path, hint=hint)
    rows = [cases[int(patient) - 1] for patient in patients]
    return {name: [level(case) for case in rows] for name, level in COLUMNS.items()}


def moderation(scores: np.ndarray, levels: Mapping[str, Sequence[str]], seed: int) -> list[Moderation]:
    """Return the tests of ``scores``, float ``[patients, 6]``, by the ``levels`` of each column, one for each patient;
    an empty one is not known. ``seed``: of the permutations."""
    size = size_of(scores)
    rows = [
        _test(column, values, gain, scores @ np.array(weights), size, seed)
        for column, values in levels.items()
        for gain, weights in GAINS.items()
    ]
    return [replace(row, p_adjusted=p) for row, p in zip(rows, holm([row.p for row in rows]), strict=True)]


def _test(column: str, values: Sequence[str], gain: str, gains: np.ndarray, size: float, seed: int) -> Moderation:
    names = sorted({value for value in values if value})
    of = {name: np.array([value == name for value in values]) for name in names}
    levels = [
        Level(name, int(of[name].sum()), paired(gain, gains[of[name]], size) if of[name].sum() >= LEAST else None)
        for name in names
    ]
    tested = [level.level for level in levels if level.gain is not None]
    number = {name: index for index, name in enumerate(tested)}
    chosen = np.array([value in number for value in values])
    labels = np.array([number[value] for value in values if value in number], dtype=np.int64)
    test = between_patients(gains[chosen], labels, size, seed)
    return Moderation(column, gain, levels, test.statistic, test.df, test.p, math.nan, test.problem)
