"""The training set: sessions with agreed scores, which every rater rates before the others and then compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cbtrain.errors import Collected, UserError, nearest
from cbtrain.eval.human_rating.form import UNRATABLE, Opinion, TrainingSession
from cbtrain.eval.human_rating.notes import companion_file, read_notes
from cbtrain.eval.rating.course_columns import OPTIONAL, PREFIX
from cbtrain.eval.rating.csv_table import CsvTable, from_cell, number_of, read_csv_table, with_decimal_points
from cbtrain.eval.rating.people import ADJUDICATED
from cbtrain.eval.rating.rubric import Rubric, whole
from cbtrain.eval.rating.scores import FIXED
from cbtrain.eval.simulation.runner import SimulatedSession

AGREED = ("agreed", "human: agreed", ADJUDICATED)
"""Judges whose scores are the agreed ones in a table with several judges."""

REASON = " reason"
"""Behind a domain's id: the column with the reason for its agreed score. ``reason`` alone is of the whole session."""

MOST_TOLD = 8


@dataclass(frozen=True, slots=True)
class AgreedScores:
    """What was agreed on one session: an opinion on each domain that has an agreed score, and a note."""

    opinions: dict[str, Opinion]
    note: str


def read_agreed(path: Path, rubric: Rubric) -> dict[str, AgreedScores]:
    """Return the agreed scores in the table at ``path``, by session id, in the order of its rows.

    It has ``session_id`` and a column for each domain; ``DOMAIN reason`` and ``reason`` are optional, and the other
    columns of a scores.csv are not needed. Evidence and notes in a file of notes beside the table
    (``human_notes.jsonl``) are read, too. Raises UserError with everything that is wrong.
    """
    expected = ("session_id", *rubric.ids)
    table = read_csv_table(path, expected, pad=True)
    _refuse_columns(table, rubric)
    with_decimal_points(table, rubric.ids)
    rows = _of_one_judge(table)
    notes = {(note["session_id"], note["judge"]): note for note in read_notes(companion_file(path, "notes.jsonl"))}
    problems = Collected("problems", MOST_TOLD)
    agreed: dict[str, AgreedScores] = {}
    for line, row in rows:
        where, session = f"{path}:{line}", row["session_id"]
        note = notes.get((session, row.get("judge", "")), {})
        opinions = {}
        for domain in rubric.ids:
            with problems.collected():
                if (opinion := _opinion(row, domain, rubric, note, where)) is not None:
                    opinions[domain] = opinion
        if not session:
            problems.add(UserError("session_id is empty", where=where, hint="Say which session it is."))
        elif session in agreed:
            problems.add(UserError(f"session {session} comes twice", where=where, hint="Keep one row for each."))
        elif not opinions:
            problems.add(UserError(f"session {session} has no score", where=where, hint="Remove the row."))
        said = row.get("reason", "") or note.get("reason", {}).get("note", "")
        agreed[session] = AgreedScores(opinions, from_cell(said))
    problems.refuse()
    if not agreed:
        raise UserError("no session in it", where=path, hint="Give each training session a row.")
    return agreed


def training_sessions(
    agreed: Mapping[str, AgreedScores], sessions: Sequence[SimulatedSession], path: Path
) -> list[TrainingSession]:
    """Return the sessions of ``agreed``, in its order. Raises UserError, which names the table at ``path``, if some are
    not among ``sessions``."""
    by_id = {session.id: session for session in sessions}
    missing = [name for name in agreed if name not in by_id]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        what = f"not among the transcripts: session {missing[0]!r}{more}"
        hint = f"Name the transcripts that have them with --training-from. {nearest(missing[0], by_id)}"
        raise UserError(what, where=path, hint=hint.strip())
    return [TrainingSession(by_id[name], scores.opinions, scores.note) for name, scores in agreed.items()]


def without_training(
    sessions: Sequence[SimulatedSession], training: Sequence[TrainingSession]
) -> list[SimulatedSession]:
    """Return the ``sessions`` whose dialogue is not that of a training session: raters know the scores of those."""
    known = {tuple(one.session.turns) for one in training}
    return [session for session in sessions if tuple(session.turns) not in known]


def _refuse_columns(table: CsvTable, rubric: Rubric) -> None:
    missing = [name for name in ("session_id", *rubric.ids) if name not in table.columns]
    if missing:
        hint = f"It needs session_id and a column for each domain of {rubric.name}."
        raise UserError(f"column {missing[0]!r} is missing", where=table.path, hint=hint)
    known = {*FIXED, *OPTIONAL, *(PREFIX + name for name in OPTIONAL), "total", "note", "reason", *rubric.ids}
    known |= {name + REASON for name in rubric.ids}
    for name in table.columns:
        if name not in known:
            hint = f"Reasons stand in columns such as {rubric.ids[0] + REASON!r}. {nearest(name, rubric.ids)}"
            raise UserError(f"column {name!r} is no domain of {rubric.name}", where=table.path, hint=hint)


def _of_one_judge(table: CsvTable) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of the one judge whose scores are the agreed ones."""
    judges = list(dict.fromkeys(row.get("judge", "") for _, row in table.rows))
    if len(judges) < 2:
        return list(table.rows)
    named = [judge for judge in judges if judge in AGREED]
    if len(named) != 1:
        hint = f"Call the one whose scores were agreed {AGREED[0]!r}, or keep its rows only."
        raise UserError(f"several judges ({', '.join(judges)})", where=table.path, hint=hint)
    return [(line, row) for line, row in table.rows if row["judge"] == named[0]]


def _opinion(
    row: Mapping[str, str], domain: str, rubric: Rubric, note: Mapping[str, dict[str, list[int]]], where: str
) -> Opinion | None:
    """Return the agreed score of a domain; None if the cell is empty."""
    text = row[domain]
    if not text:
        return None
    unratable = text.casefold() == UNRATABLE
    score = None if unratable else number_of(text)
    if not unratable and (score is None or not rubric.minimum <= score <= rubric.maximum):
        hint = f"Give a number from {rubric.minimum:g} to {rubric.maximum:g}, {UNRATABLE}, or nothing."
        raise UserError(f"{domain}: {text!r} is no score", where=where, hint=hint)
    evidence = note.get("evidence", {}).get(domain, [])
    return Opinion(whole(score), list(evidence), from_cell(row.get(domain + REASON, "")))
