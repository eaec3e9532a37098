"""Ratings as a table: our ``scores.csv``, or the 2024 study's ``all_scores_with_patients.csv``."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbtrain.errors import UserError, nearest
from cbtrain.eval.scores import FIXED, read_scores_csv

AUTHORS = ("id", "patient_id", "group")
"""Columns of the author's table that are no items; ``justifications`` may follow them."""

VARIANTS = {"Finetune": "tuned", "Instruct": "instruct"}
"""What the author's groups call the two variants of a base."""


OURS = {"tuned": "tuned", "base": "instruct"}
"""Variants of the arms that an evaluation has."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A therapist under test: a base model, tuned or not. ``base`` and ``variant`` are empty where a name has none."""

    name: str
    base: str
    variant: str


@dataclass(frozen=True, slots=True)
class Ratings:
    """One row a rating. ``items``: float64 ``[rows, items]``, NaN where there is no score; the other arrays are
    ``[rows]``: arm and patient by name, session (number within a patient and arm), judge by name, repeat."""

    item_names: tuple[str, ...]
    arms: dict[str, Arm]
    arm: np.ndarray
    patient: np.ndarray
    session: np.ndarray
    judge: np.ndarray
    repeat: np.ndarray
    items: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Sum over items, NaN unless every item has a score: never filled in. Float64 ``[rows]``."""
        return np.asarray(self.items.sum(axis=1))

    def __len__(self) -> int:
        return len(self.arm)


def read_ratings(path: Path) -> Ratings:
    """Read either table, told apart by its columns. Raises UserError with the line of what cannot be used."""
    csv.field_size_limit(sys.maxsize)  # justifications are long
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            columns = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", where=path, fix="Name a table of scores.") from None
    if set(FIXED) <= set(columns):
        found = _ours(path)
    elif set(AUTHORS) <= set(columns):
        found = _authors(path, columns)
    else:
        missing = next(name for name in (FIXED if "session_id" in columns else AUTHORS) if name not in columns)
        fix = f"Name a scores.csv of cbtrain, or the 2024 study's table. {nearest(missing, columns) if columns else ''}"
        raise UserError(f"column {missing!r} is missing", where=path, fix=fix.strip())
    if len(found) == 0:
        raise UserError("no ratings in it", where=path, fix="Name a table that has rows.")
    _refuse_doubles(found, path)
    return found


def _ours(path: Path) -> Ratings:
    scores = read_scores_csv(path)
    names = tuple(scores[0].domains) if scores else ()
    items = [[math.nan if (value := score.domains[name]) is None else value for name in names] for score in scores]
    return Ratings(
        names,
        {score.arm: Arm(score.arm, "", OURS.get(score.arm, "")) for score in scores},
        np.array([score.arm for score in scores]),
        np.array([score.patient for score in scores]),
        np.array([score.seed for score in scores]),
        np.array([score.judge for score in scores]),
        np.array([score.repeat for score in scores]),
        np.array(items, dtype=np.float64).reshape(len(scores), len(names)),
    )


def _authors(path: Path, columns: Sequence[str]) -> Ratings:
    names = tuple(name for name in columns if name not in (*AUTHORS, "justifications"))
    arms: dict[str, Arm] = {}
    arm, patient, session, items = [], [], [], []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            where = f"{path}:{reader.line_num}"
            group, number = row["group"] or "", (row["id"] or "").partition("_")[0]
            known = group.split("_")
            if len(known) < 2 or known[1] not in VARIANTS:
                fix = "Groups are called BASE_Finetune_… or BASE_Instruct_…."
                raise UserError(f"unknown group {group!r}", where=where, fix=fix)
            if not number.isdigit():
                raise UserError(f"no session number in id {row['id']!r}", where=where, fix="Ids begin with it: 7_….")
            arms.setdefault(group, Arm(group, known[0], VARIANTS[known[1]]))
            arm.append(group)
            patient.append(row["patient_id"])
            session.append(int(number))
            items.append([_number(row[name], name, where) for name in names])
    rows = len(arm)
    return Ratings(
        names,
        arms,
        np.array(arm),
        np.array(patient),
        np.array(session),
        np.full(rows, "the author's judge"),
        np.zeros(rows, dtype=np.int64),
        np.array(items, dtype=np.float64).reshape(rows, len(names)),
    )


def _number(text: str | None, column: str, where: str) -> float:
    """A score; NaN where the cell is empty."""
    if text is None or not text.strip():
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{column}: {text!r} is no number", where=where, fix="Mend the cell, or leave it empty.")
    return value


def _refuse_doubles(found: Ratings, path: Path) -> None:
    """The same session rated twice by one judge in one repeat would count twice."""
    seen: set[tuple[object, ...]] = set()
    for row in zip(found.arm, found.patient, found.session, found.judge, found.repeat, strict=True):
        if row in seen:
            arm, patient, session, *_ = row
            what = f"session {session} of patient {patient} with {arm} is there twice (same judge and repeat)"
            raise UserError(what, where=path, fix="Leave one of the rows out, or number the repeats.")
        seen.add(row)
