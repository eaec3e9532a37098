"""Ratings as a table: our ``scores.csv``, or the 2024 study's ``all_scores_with_patients.csv``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cbtrain.errors import UserError, nearest
from cbtrain.eval.analysis.arms import Arm, arms_of
from cbtrain.eval.analysis.sessions import Key
from cbtrain.eval.rating.csv_table import CsvTable, check_name, read_csv_table, with_decimal_points
from cbtrain.eval.rating.rubric import Rubric, load_rubric
from cbtrain.eval.rating.scores import FIXED, LONGEST, Score, check_size, number_of, scores_of
from cbtrain.transcripts.source import natural_key

AUTHORS = ("id", "patient_id", "group")
"""Columns of the author's table that are no items; ``justifications`` may follow them."""

AUTHORS_ITEMS = (
    "Agenda",
    "Feedback",
    "Understanding",
    "Interpersonal Effectiveness",
    "Collaboration",
    "Pacing and Efficient Use of Time",
    "Guided Discovery",
    "Focusing on Key Cognitions or Behaviors",
    "Strategy for Change",
    "Application of Cognitive-Behavioral Techniques",
    "Homework",
)
"""A table that has some of these and not all has lost a column, and its totals mean something else."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The points of an item, the total from which on a session counts as competent, where there is such a line, and
    what the instrument is called, where no rubric says it."""

    low: float
    high: float
    cutoff: float | None = None
    name: str = ""


AUTHORS_SCALE = Scale(1, 10, name="The 2024 study's modified rating scale")
"""It has no cut-off."""


COLUMNS = ("arm", "patient", "session", "judge", "repeat", "status", "items")
"""The arrays of a table of ratings."""


@dataclass(frozen=True, slots=True)
class Ratings:
    """One row a rating. ``items``: float64 ``[rows, items]``, NaN if there is no score; the other arrays are
    ``[rows]``: arm and patient by name, session (number within a patient and arm), judge by name, repeat, status (as
    :data:`cbtrain.eval.rating.scores.Status` has it). ``scale`` is None if the instrument is not known. ``notes``: what
    was guessed when a table was read."""

    item_names: tuple[str, ...]
    arms: dict[str, Arm]
    arm: np.ndarray
    patient: np.ndarray
    session: np.ndarray
    judge: np.ndarray
    repeat: np.ndarray
    status: np.ndarray
    items: np.ndarray
    scale: Scale | None = None
    notes: tuple[str, ...] = ()

    @property
    def judges(self) -> list[str]:
        """By name: the order of rows decides nothing."""
        return sorted(set(map(str, self.judge)), key=natural_key)

    @property
    def sessions(self) -> list[Key]:
        """Return the session that each row rates: arm, patient and number."""
        rows = zip(self.arm, self.patient, self.session, strict=True)
        return [(str(arm), str(patient), int(session)) for arm, patient, session in rows]

    @property
    def rated_sessions(self) -> set[Key]:
        """Return those with a total by any judge."""
        return set(self.only(np.isfinite(self.total)).sessions)

    def only(self, rows: np.ndarray) -> Ratings:
        """Return the ratings that ``rows`` (bool ``[rows]``) choose; arms stay known."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return replace(self, **columns)

    @property
    def total(self) -> np.ndarray:
        """Sum over items, NaN unless every item has a score: never filled in. Float64 ``[rows]``."""
        return np.asarray(self.items.sum(axis=1))

    def __len__(self) -> int:
        return len(self.arm)


def read_ratings(path: Path, rubric: Rubric | None = None) -> Ratings:
    """Read either table, told apart by its columns. ``rubric`` is the instrument of a table of ours; without it the
    shipped one is taken where its domains are the table's. Raises UserError with the line of what cannot be used."""
    table = read_csv_table(path, (*FIXED, *AUTHORS))
    columns = table.columns
    if set(FIXED) <= set(columns):
        found = _ours(table, rubric)
    elif set(AUTHORS) <= set(columns) and rubric is not None:
        hint = "Leave --rubric out; only tables of ours are rated by one."
        raise UserError("the 2024 study's table has a scale of its own", where=path, hint=hint)
    elif set(AUTHORS) <= set(columns):
        found = _authors(table)
    else:
        missing = next(name for name in (FIXED if "session_id" in columns else AUTHORS) if name not in columns)
        hint = (
            f"Name a scores.csv of cbtrain, or the 2024 study's table. {nearest(missing, columns) if columns else ''}"
        )
        raise UserError(f"column {missing!r} is missing", where=path, hint=hint.strip())
    if len(found) == 0:
        raise UserError("no ratings in it", where=path, hint="Name a table that has rows.")
    found = replace(found, notes=tuple(table.notes))
    _refuse_doubles(found, path)
    _refuse_other_points(found, path)
    return found


def join_ratings(tables: Sequence[Ratings], where: str) -> Ratings:
    """Return several tables of the same instrument as one. Raises UserError, which names ``where``, on different items
    and on ratings that come twice."""
    first = tables[0]
    for table in tables[1:]:
        if set(table.item_names) != set(first.item_names):
            other = sorted(set(table.item_names) ^ set(first.item_names))[0]
            hint = "Tables that are read together need the same items."
            raise UserError(f"item {other!r} is in one table only", where=where, hint=hint)
    order = [[table.item_names.index(name) for name in first.item_names] for table in tables]
    alike = [replace(table, items=table.items[:, places]) for table, places in zip(tables, order, strict=True)]
    columns = {name: np.concatenate([getattr(table, name) for table in alike]) for name in COLUMNS}
    arms = {name: arm for table in tables for name, arm in table.arms.items()}
    notes = tuple(note for table in tables for note in table.notes)
    made = replace(first, arms=_by_name(arms), notes=notes, **columns)
    _refuse_doubles(made, Path(where))
    _refuse_other_points(made, Path(where))
    return made


def _by_name(arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """Return ``arms`` by name, 2 before 10: the order of rows decides nothing."""
    return {name: arms[name] for name in sorted(arms, key=natural_key)}


def one_judge(ratings: Ratings, name: str, where: str) -> Ratings:
    """Return the ratings of the judge called ``name``. Raises UserError if there is none."""
    if name not in ratings.judges:
        hint = f"Judges here: {', '.join(ratings.judges)}."
        raise UserError(f"no rating by {name!r}", where=where, hint=hint)
    return ratings.only(ratings.judge == name)


def _instrument(names: tuple[str, ...], rubric: Rubric | None, path: Path) -> Scale | None:
    """Return the scale of a table of ours with these items. Raises UserError on columns beside those of the
    instrument."""
    chosen = rubric or load_rubric()
    domains = {domain.id for domain in chosen.domains}
    if domains == set(names):
        return scale_of_rubric(chosen)
    if domains < set(names):
        extra = next(name for name in names if name not in domains)
        hint = "Take it out, or name the rubric (--rubric)."
        raise UserError(f"column {extra!r} is no domain of {chosen.name}", where=path, hint=hint)
    if rubric is None:
        return None
    other = next((name for name in names if name not in domains), None)
    problem = f"{other!r} is no domain of it" if other else "its domains are not those of the table"
    raise UserError(problem, where=f"rubric {chosen.name}", hint=f"Name the rubric by which {path} was rated.")


def _ours(table: CsvTable, rubric: Rubric | None) -> Ratings:
    path, scores = table.path, scores_of(table)
    _refuse_mixed_ids(scores, path)
    names = tuple(scores[0].domains) if scores else ()
    scale = _instrument(names, rubric, path) if scores else None
    return ratings_of(scores, names, sorted({score.arm for score in scores}, key=natural_key), scale)


def ratings_of(scores: Sequence[Score], items: Sequence[str], arms: Iterable[str], scale: Scale | None) -> Ratings:
    """Scores as a table. ``items`` and ``arms`` are named, since there may be no score at all."""
    values = [[math.nan if (value := score.domains[name]) is None else value for name in items] for score in scores]
    return Ratings(
        tuple(items),
        arms_of(arms),
        np.array([score.arm for score in scores]),
        np.array([score.patient for score in scores]),
        np.array([score.seed for score in scores], dtype=np.int64),
        np.array([score.judge for score in scores]),
        np.array([score.repeat for score in scores], dtype=np.int64),
        np.array([score.status for score in scores]),
        np.array(values, dtype=np.float64).reshape(len(scores), len(items)),
        scale,
    )


def scale_of_rubric(rubric: Rubric) -> Scale:
    return Scale(rubric.minimum, rubric.maximum, rubric.cutoff)


def _authors(table: CsvTable) -> Ratings:
    path = table.path
    names = tuple(name for name in table.columns if name not in (*AUTHORS, "justifications"))
    lost = [name for name in AUTHORS_ITEMS if name not in names]
    if lost and len(lost) < len(AUTHORS_ITEMS):
        raise UserError(f"column {lost[0]!r} is missing", where=path, hint="A total takes all eleven items.")
    if not lost and len(names) > len(AUTHORS_ITEMS):
        other = next(name for name in names if name not in AUTHORS_ITEMS)
        raise UserError(f"column {other!r} is none of the eleven items", where=path, hint="Take it out.")
    with_decimal_points(table, names)
    arm, patient, session, items = [], [], [], []
    for line, row in table.rows:
        where = f"{path}:{line}"
        group, number = row["group"], row["id"].partition("_")[0]
        if not (number.isascii() and number.isdigit() and len(number) <= LONGEST):
            raise UserError(f"no session number in id {row['id'][:40]!r}", where=where, hint="Ids begin with it: 7_….")
        try:
            check_name(row["patient_id"], "patient_id")
            check_name(group, "group")
        except ValueError as error:
            raise UserError(str(error), where=where, hint="Correct or remove the row.") from None
        arm.append(group)
        patient.append(row["patient_id"])
        session.append(int(number))
        items.append([_number(row[name], name, where) for name in names])
    scores = np.array(items, dtype=np.float64).reshape(len(arm), len(names))
    return Ratings(
        names,
        arms_of(sorted(set(arm), key=natural_key)),
        np.array(arm),
        np.array(patient),
        np.array(session),
        np.full(len(arm), "the author's judge"),
        np.zeros(len(arm), dtype=np.int64),
        np.where(np.isfinite(scores).all(axis=1), "ok", "unratable"),
        scores,
        AUTHORS_SCALE,
    )


def _number(text: str, column: str, where: str) -> float:
    """Return a score; NaN if the cell is empty."""
    if not text:
        return math.nan
    value = number_of(text)
    if value is None:
        raise UserError(f"{column}: {text!r} is no number", where=where, hint="Correct the cell, or leave it empty.")
    try:
        check_size(value, column)
    except ValueError as error:
        raise UserError(str(error), where=where, hint="Correct the cell, or leave it empty.") from None
    return value


def _refuse_mixed_ids(scores: Sequence[Score], path: Path) -> None:
    """Raise UserError if a session has two ids, or two sessions have the same id."""
    ids: dict[str, tuple[str, str, int]] = {}
    sessions: dict[tuple[str, str, int], str] = {}
    for score in scores:
        key = (score.arm, score.patient, score.seed)
        if ids.setdefault(score.session_id, key) != key:
            what = f"session_id {score.session_id!r} is that of two sessions: {ids[score.session_id]} and {key}"
            raise UserError(what, where=path, hint="Give each session an id of its own.")
        if sessions.setdefault(key, score.session_id) != score.session_id:
            what = f"session_ids {sessions[key]!r} and {score.session_id!r} are of one arm, patient and seed"
            raise UserError(what, where=path, hint="Number the seeds apart, or give them the same id.")


def _refuse_doubles(found: Ratings, path: Path) -> None:
    """Raise UserError if one judge rated a session twice in one repeat: it would count twice."""
    seen: set[tuple[object, ...]] = set()
    for row in zip(found.arm, found.patient, found.session, found.judge, found.repeat, strict=True):
        if row in seen:
            arm, patient, session, *_ = row
            what = f"session {session} of patient {patient} with {arm} is there twice (same judge and repeat)"
            raise UserError(what, where=path, hint="Leave one of the rows out, or number the repeats.")
        seen.add(row)


def _refuse_other_points(found: Ratings, path: Path) -> None:
    """Raise UserError if a score lies outside the scale."""
    if found.scale is None:
        return
    low, high = found.scale.low, found.scale.high
    outside = np.argwhere((found.items < low) | (found.items > high))
    if len(outside):
        row, place = outside[0]
        who = f"session {found.session[row]} of patient {found.patient[row]} with {found.arm[row]}"
        what = f"{found.item_names[place]} of {who} is {found.items[row, place]:g}, outside {low:g} to {high:g}"
        raise UserError(what, where=path, hint="Correct the cell, or name the rubric with --rubric.")
