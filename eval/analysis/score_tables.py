"""Read tables of scores: a ``scores.csv`` of cbtrain, a spreadsheet with less, or the 2024 study's
``all_scores_with_patients.csv``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cbtrain.errors import UserError
from cbtrain.eval.analysis.arms import arms_of
from cbtrain.eval.analysis.ratings import Ratings, Scale, ratings_of, refuse_impossible
from cbtrain.eval.analysis.sessions import Key
from cbtrain.eval.rating.course_columns import OPTIONAL
from cbtrain.eval.rating.csv_table import CsvTable, check_name, number_of, read_csv_table, with_decimal_points
from cbtrain.eval.rating.joined_table import joined
from cbtrain.eval.rating.keying import AS_GIVEN
from cbtrain.eval.rating.loose_table import completed, require_mapped, with_columns
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import FIXED, LONGEST, TOTAL, Score, check_size, scores_of
from cbtrain.eval.simulation.slots import words_of
from cbtrain.transcripts.metadata import FILE
from cbtrain.transcripts.source import natural_key

AUTHORS = ("id", "patient_id", "group")
"""Columns of the author's table that are not items; ``justifications`` may follow them."""

OF_2025 = ("session_id", "model_type", "act_fm_total_consistency", "tes_total_empathy_mean")
"""Columns by which the 2025 study's table is known; :mod:`cbtrain.eval.analysis.tahir2025.scores` reads it."""

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
"""Items of the author's table. A table with some of them only has lost a column, and its totals mean something else."""


AUTHORS_SCALE = Scale(1, 10, name="The 2024 study's modified rating scale")


def read_ratings(
    path: Path,
    rubric: Rubric | None = None,
    *,
    mapping: Mapping[str, str] | None = None,
    metadata: Path | None = None,
) -> Ratings:
    """Return the ratings in the table at ``path``, of any kind, which its columns tell.

    ``rubric``: instrument of a table of cbtrain (default: the shipped one, if the table has its domains). ``mapping``:
    the table's names of our columns. ``metadata``: a table that says whose the sessions are
    (:func:`cbtrain.eval.rating.joined_table.joined`). Raises UserError, with the line, on anything that cannot be used.
    """
    mapping = mapping or {}
    table = read_csv_table(path, (*FIXED, *OPTIONAL, *AUTHORS, TOTAL, *mapping.values()))
    if set(AUTHORS) <= set(table.columns) and not set(FIXED) <= set(table.columns) and not mapping:
        if rubric is not None:
            hint = "Leave --rubric out; it is for other tables."
            raise UserError("the 2024 study's table has its own scale", where=path, hint=hint)
        ratings, notes = _from_author(table), list(table.notes)
        if metadata is not None:
            notes.append(f"{metadata.name} is not joined to the scores: the 2024 study's table names its arms")
    else:
        if set(OF_2025) <= set(table.columns) and not mapping:
            hint = "Take --protocol tahir2025, or name one: --map arm=model_type,patient=session_id,total=COLUMN."
            raise UserError("the 2025 study's table has several totals", where=path, hint=hint)
        table = _prepared(table, rubric, mapping, metadata)
        ratings, notes = _from_cbtrain(table, rubric), table.notes
    if len(ratings) == 0:
        raise UserError("the table has no ratings", where=path, hint="Name a table that has rows.")
    ratings = replace(ratings, notes=tuple(notes))
    refuse_impossible(ratings, path)
    return ratings


def _prepared(table: CsvTable, rubric: Rubric | None, mapping: Mapping[str, str], metadata: Path | None) -> CsvTable:
    """Return ``table`` with the columns of a ``scores.csv``, under our names. Raises UserError."""
    about = read_csv_table(metadata, (*FIXED, *OPTIONAL, *FILE, *mapping.values())) if metadata else None
    require_mapped(mapping, [table, *([about] if about else [])])
    table = with_columns(table, mapping)
    if about is not None:
        table = joined(table, with_columns(about, mapping))
    return completed(table, rubric)


def _rubric_of_items(names: tuple[str, ...], rubric: Rubric | None, path: Path) -> Rubric | None:
    """Return the instrument of a cbtrain table with items called ``names``; None if no rubric was given and the shipped
    one does not fit. Raises UserError if items and the rubric's domains differ."""
    chosen = rubric or load_rubric()
    if names == (TOTAL,):  # of whatever is known: totals alone say nothing of their items
        return rubric
    domains = {domain.id for domain in chosen.domains}
    if domains == set(names):
        return chosen
    if domains < set(names):
        extra = next(name for name in names if name not in domains)
        hint = "Remove it, or name the rubric (--rubric)."
        raise UserError(f"column {extra!r} is not a domain of {chosen.name}", where=path, hint=hint)
    if rubric is None:
        return None
    other = next((name for name in names if name not in domains), None)
    problem = f"{other!r} is not one of its domains" if other else "the table lacks some of its domains"
    raise UserError(problem, where=f"rubric {chosen.name}", hint=f"Name the rubric by which {path} was rated.")


def _from_cbtrain(table: CsvTable, rubric: Rubric | None) -> Ratings:
    path, scores = table.path, scores_of(table, rubric.keying if rubric else AS_GIVEN)
    _refuse_ambiguous_ids(scores, path)
    names = tuple(scores[0].domains) if scores else ()
    instrument = _rubric_of_items(names, rubric, path) if scores else None
    return ratings_of(scores, names, sorted({score.arm for score in scores}, key=natural_key), instrument, path)


def _from_author(table: CsvTable) -> Ratings:
    path = table.path
    names = tuple(name for name in table.columns if name not in (*AUTHORS, "justifications"))
    lost = [name for name in AUTHORS_ITEMS if name not in names]
    if lost and len(lost) < len(AUTHORS_ITEMS):
        raise UserError(f"column {lost[0]!r} is missing", where=path, hint="The total needs all eleven items.")
    if not lost and len(names) > len(AUTHORS_ITEMS):
        other = next(name for name in names if name not in AUTHORS_ITEMS)
        raise UserError(f"column {other!r} is not one of the eleven items", where=path, hint="Remove it.")
    with_decimal_points(table, names)
    arm, patient, session, items = [], [], [], []
    for line, row in table.rows:
        where = f"{path}:{line}"
        group, number = row["group"], row["id"].partition("_")[0]
        if not (number.isascii() and number.isdigit() and len(number) <= LONGEST):
            hint = "An id begins with the session number, as 7_…."
            raise UserError(f"no session number in id {row['id'][:40]!r}", where=where, hint=hint)
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
        item_names=names,
        arms=arms_of(sorted(set(arm), key=natural_key)),
        arm=np.array(arm),
        patient=np.array(patient),
        session=np.array(session),
        number=np.zeros(len(arm), dtype=np.int64),
        simulator=np.full(len(arm), ""),
        judge=np.full(len(arm), "the author's judge"),
        repeat=np.zeros(len(arm), dtype=np.int64),
        status=np.where(np.isfinite(scores).all(axis=1), "ok", "unratable"),
        items=scores,
        scale=AUTHORS_SCALE,
    )


def _number(text: str, column: str, where: str) -> float:
    """Return the score in a cell; NaN if it is empty. Raises UserError if it is not a number, or too large or small."""
    if not text:
        return math.nan
    value = number_of(text)
    if value is None:
        raise UserError(f"{column}: {text!r} is not a number", where=where, hint="Correct the cell, or leave it empty.")
    try:
        check_size(value, column)
    except ValueError as error:
        raise UserError(str(error), where=where, hint="Correct the cell, or leave it empty.") from None
    return value


def _refuse_ambiguous_ids(scores: Sequence[Score], path: Path) -> None:
    """Raise UserError if a session has two ids, or two sessions have the same id."""
    first_of: dict[str, Score] = {}
    sessions: dict[Key, str] = {}
    for score in scores:
        key = (score.arm, score.patient, score.slot)
        first = first_of.setdefault(score.session_id, score)
        if (first.arm, first.patient, first.slot) != key:
            what = f"two sessions have session_id {score.session_id!r}: {_place(first)} and {_place(score)}"
            raise UserError(what, where=path, hint="Give each session its own id.")
        if sessions.setdefault(key, score.session_id) != score.session_id:
            same = "arm, patient and seed" if score.slot == score.seed else "arm, patient, seed, session and simulator"
            what = f"session_ids {sessions[key]!r} and {score.session_id!r} have the same {same}"
            raise UserError(what, where=path, hint="Give them different seeds, or the same id.")


def _place(score: Score) -> str:
    return f"{score.arm}, {score.patient}, {words_of(score.seed, score.number, score.simulator)}"
