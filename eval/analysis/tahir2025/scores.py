"""Read the 2025 study's ``scores.csv``: two instruments, six arms, each patient once with each arm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbtrain.errors import UserError
from cbtrain.eval.rating.csv_table import check_name, number_of, read_csv_table, with_decimal_points
from cbtrain.transcripts.source import natural_key

Items = tuple[int, ...]

ARMS: Mapping[str, str] = {
    "llama3_3b_instruct": "instruct-thinking",
    "llama3_3b_instruct_no_COT": "instruct-plain",
    "orpo": "ORPO-thinking",
    "orpo_no_COT": "ORPO-plain",
    "sft": "SFT-thinking",
    "sft_answer_only": "SFT-plain",
}
"""Our names of the arms by the table's ``model_type``, in the order of the published tables; the first is the reference
level of its model. ``plain``: without a "Thinking:" part."""

SUBSCALES: Mapping[str, tuple[Items, float]] = {
    "act_fm_consistent_stance": ((1, 2, 3, 4), 0.75),
    "act_fm_consistent_open": ((8, 9, 10), 1.0),
    "act_fm_consistent_aware": ((14, 15, 16), 1.0),
    "act_fm_consistent_engaged": ((20, 21, 22), 1.0),
    "act_fm_inconsistent_stance": ((5, 6, 7), 1.0),
    "act_fm_inconsistent_open": ((11, 12, 13), 1.0),
    "act_fm_inconsistent_aware": ((17, 18, 19), 1.0),
    "act_fm_inconsistent_engaged": ((23, 24, 25), 1.0),
}
"""Items of ACT-FM in each sub-scale, and the weight by which the table sums them: four items count as three."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A total of the table: its ``column``, the ``name`` that tables show, and its range in points. ``published``: the
    study analysed it."""

    column: str
    name: str
    low: float
    high: float
    published: bool


OUTCOMES: Mapping[str, Outcome] = {
    "act_fm": Outcome("act_fm_total_consistency", "ACT-FM consistency", 0, 36, True),
    "tes": Outcome("tes_total_empathy_mean", "TES", 1, 7, True),
    "act_fm_inconsistency": Outcome("act_fm_total_inconsistency", "ACT-FM inconsistency", 0, 36, False),
}

ITEMS: Mapping[str, tuple[float, float]] = {
    **{f"act_fm_item_{number}": (0, 3) for number in range(1, 26)},
    **{f"tes_item_{number}": (1, 7) for number in range(1, 10)},
}
"""Columns of items, with the range of their points."""

COUNTS = ("turn_count", "therapist_turns", "patient_turns", "word_count")
KEYS = ("session_id", "model_type")
COLUMNS = (*KEYS, *COUNTS, "parsing_status", *SUBSCALES, *(outcome.column for outcome in OUTCOMES.values()), *ITEMS)

ROUNDED = 1e-6
"""How far a total may lie from that of its items: tables are written with 16 digits."""


@dataclass(frozen=True, slots=True)
class StudyScores:
    """``patients``: their ids, in natural order. ``columns``: numbers by column of the table, float64 ``[patients,
    arms]``, the arms in the order of :data:`ARMS`."""

    path: Path
    patients: tuple[str, ...]
    columns: Mapping[str, np.ndarray]

    def outcome(self, key: str) -> np.ndarray:
        """Return the totals of the outcome ``key`` of :data:`OUTCOMES`, float64 ``[patients, arms]``."""
        return self.columns[OUTCOMES[key].column]

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(ARMS.values())


def read_study_scores(path: Path) -> StudyScores:
    """Return the scores in the table at ``path``.

    Raises UserError, with the line, if a column or a cell is missing, if a number is none or out of range, if a total
    is not that of its items, if a dialogue comes twice, or if a patient lacks an arm.
    """
    table = read_csv_table(path, COLUMNS)
    hint = "Name the 2025 study's scores.csv, or take another --protocol."
    for name in COLUMNS:
        if name not in table.columns:
            raise UserError(f"column {name!r} is missing", where=path, hint=hint)
    with_decimal_points(table, COLUMNS)
    numbers: dict[tuple[str, str], dict[str, float]] = {}
    for line, row in table.rows:
        where = f"{path}:{line}"
        patient, arm = row["session_id"], row["model_type"]
        try:
            check_name(patient, "session_id")
            if arm not in ARMS:
                raise ValueError(f"model_type {arm[:60]!r} is not one of {', '.join(ARMS)}")
            if (patient, arm) in numbers:
                raise ValueError(f"patient {patient} with {arm} comes twice")
            numbers[patient, arm] = _numbers(row)
        except ValueError as error:
            raise UserError(str(error), where=where, hint="Correct or remove the row.") from None
    patients = sorted({patient for patient, _ in numbers}, key=natural_key)
    if len(patients) < 2:
        raise UserError(f"{len(patients)} patients: the analysis needs two", where=path, hint=hint)
    for patient in patients:
        for arm in ARMS:
            if (patient, arm) not in numbers:
                hint = "The published model needs every patient with all six arms: complete or remove the patient."
                raise UserError(f"patient {patient} has no dialogue with {arm}", where=path, hint=hint)
    names = [name for name in COLUMNS if name not in (*KEYS, "parsing_status")]
    columns = {name: np.array([[numbers[one, arm][name] for arm in ARMS] for one in patients]) for name in names}
    return StudyScores(path, tuple(patients), columns)


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    """Return the numbers of a row by column. Raises ValueError."""
    if row["parsing_status"] != "OK":
        raise ValueError(f"parsing_status is {row['parsing_status'][:40]!r}, not 'OK'")
    found = {}
    for name in COLUMNS:
        if name in (*KEYS, "parsing_status"):
            continue
        value = number_of(row[name]) if row[name] else None
        if value is None or not math.isfinite(value):
            raise ValueError(f"{name}: {row[name][:40]!r} is not a number" if row[name] else f"{name} is empty")
        if name in COUNTS and not (value >= 0 and value.is_integer()):
            raise ValueError(f"{name}: {row[name][:40]} is not a count")
        if name in ITEMS and not (ITEMS[name][0] <= value <= ITEMS[name][1]):
            raise ValueError(f"{name}: {value:g} is not within {ITEMS[name][0]:g} to {ITEMS[name][1]:g}")
        found[name] = value
    if not found["word_count"]:
        raise ValueError("word_count is 0")
    for name, expected in _expected(found).items():
        if abs(found[name] - expected) > ROUNDED:
            raise ValueError(f"{name} is {found[name]:g}, and its parts give {expected:g}")
    return found


def _expected(found: Mapping[str, float]) -> dict[str, float]:
    """Return what totals, sub-scales and turns have to be by their parts."""
    sums = {
        name: weight * sum(found[f"act_fm_item_{item}"] for item in items)
        for name, (items, weight) in SUBSCALES.items()
    }
    return {
        **sums,
        "act_fm_total_consistency": sum(value for name, value in sums.items() if "_consistent_" in name),
        "act_fm_total_inconsistency": sum(value for name, value in sums.items() if "_inconsistent_" in name),
        "tes_total_empathy_mean": sum(found[f"tes_item_{item}"] for item in range(1, 10)) / 9,
        "turn_count": found["therapist_turns"] + found["patient_turns"],
    }
