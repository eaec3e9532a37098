"""What another table says of the sessions in a table of scores: whose they are, with which arm, and what the patient is
like. Rows are joined by the session's id or file, or by the columns that both tables have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from cbtrain.errors import UserError, first_of
from cbtrain.eval.rating.course_columns import OPTIONAL, SESSION
from cbtrain.eval.rating.csv_table import CsvTable, Row
from cbtrain.transcripts.metadata import FILE, PATIENT

JOINED = ("arm", "patient", "seed", *OPTIONAL)
"""Columns that a table of metadata may give."""

SHARED = ("arm", "patient", "seed", "session", "phase", "simulator")
"""Columns by which rows are joined if there is neither an id nor a file."""

NAMED = 3
ENDING = re.compile(r"\.[A-Za-z0-9]{1,8}(?:\.gz)?$")
NUMBER = re.compile(r"/[0-9]{1,9}$")
"""The number in the course, at the end of the ids that cbtrain gives to sessions of files."""


def joined(table: CsvTable, metadata: CsvTable) -> CsvTable:
    """Return ``table`` with the columns of :data:`JOINED` that ``metadata`` has; a cell of it that is not empty
    replaces the one of the scores, and notes count what was replaced and what has no counterpart.

    Raises UserError if nothing can be joined, if rows of one session differ, and if a score has no row where the arm or
    the patient comes from them.
    """
    keys = _keys(table, metadata)
    headers = {_ours(column, metadata): column for column in metadata.columns}
    given = [name for name in JOINED if name in headers and headers[name] not in keys.theirs]
    if not given:
        hint = f"It may have the columns {', '.join(JOINED)}."
        raise UserError("it says nothing of the sessions that was not known", where=metadata.path, hint=hint)
    said = _said(metadata, keys, {name: headers[name] for name in given})
    # A file's session is its number in the course, and ratings of files have it as their seed.
    ours = {name: "seed" if name == SESSION and keys.by_file else name for name in given}
    rows: list[Row] = []
    used, lacking, changed = set(), [], 0
    for line, row in table.rows:
        found = next((said[key] for key in keys.of(row) if key in said), None)
        cells = {ours[name]: cell for name, cell in found.cells.items() if cell} if found else {}
        used.add(found.line if found else 0)
        lacking += [] if found else [" ".join(keys.of(row)[0])]
        changed += any(row.get(name) not in (None, "", cell) for name, cell in cells.items())
        rows.append((line, dict.fromkeys(ours.values(), "") | row | cells))
    _refuse_lacking(table, metadata, lacking, keys)
    notes = [f"{metadata.path.name}: joined by {' and '.join(keys.theirs)}"]
    notes += [f"{changed} rows of scores say something else than {metadata.path.name}, which counts"] if changed else []
    notes += [f"{len(lacking)} rows of scores have no row in {metadata.path.name}"] if lacking else []
    if unused := len({one.line for one in said.values()} - used):
        notes.append(f"{unused} rows of {metadata.path.name} have no scores")
    columns = list(dict.fromkeys([*table.columns, *ours.values()]))
    return replace(table, columns=columns, rows=rows, notes=[*table.notes, *notes])


class _Said(NamedTuple):
    """One row of metadata."""

    line: int
    cells: dict[str, str]


class _Keys:
    """By which cells rows are joined: ``ours`` in the scores, ``theirs`` in the metadata."""

    def __init__(self, ours: Sequence[str], theirs: Sequence[str], *, by_file: bool = False) -> None:
        self.ours, self.theirs, self.by_file = ours, theirs, by_file

    def of(self, row: Mapping[str, str]) -> list[tuple[str, ...]]:
        """Return what a row of scores may be called in the metadata, the likeliest first."""
        key = tuple(row[name].removesuffix(".0") for name in self.ours)
        if not self.by_file:
            return [key]
        return [(name,) for name in dict.fromkeys((key[0], ENDING.sub("", key[0]), NUMBER.sub("", key[0])))]

    def of_metadata(self, row: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(row[name].removesuffix(".0") for name in self.theirs)


def _keys(table: CsvTable, metadata: CsvTable) -> _Keys:
    if "session_id" in table.columns and "session_id" in metadata.columns:
        return _Keys(["session_id"], ["session_id"])
    theirs = next((column for column in metadata.columns if column in FILE), None)
    ours = next((column for column in (*FILE, "session_id") if column in table.columns), None)
    if theirs and ours:
        return _Keys([ours], [theirs], by_file=True)
    shared = [name for name in SHARED if name in table.columns and name in metadata.columns]
    if not shared:
        hint = f"It needs session_id, file, or a column of the scores among {', '.join(SHARED)}."
        raise UserError(f"no column that {table.path} has too", where=metadata.path, hint=hint)
    return _Keys(shared, shared)


def _ours(column: str, metadata: CsvTable) -> str:
    return "patient" if column in PATIENT and "patient" not in metadata.columns else column


def _said(metadata: CsvTable, keys: _Keys, headers: Mapping[str, str]) -> dict[tuple[str, ...], _Said]:
    """Return what each row says, by its key; of files also by the name without its ending, if it is the only one.
    Raises UserError on two rows of one key that differ."""
    said: dict[tuple[str, ...], _Said] = {}
    for line, row in metadata.rows:
        key, cells = keys.of_metadata(row), {name: row[header] for name, header in headers.items()}
        if said.setdefault(key, _Said(line, cells)).cells != cells:
            what = f"a second row of {' '.join(key)!r} that says something else"
            hint = f"Rows are joined by {' and '.join(keys.theirs)}: leave one of them, or add a column."
            raise UserError(what, where=f"{metadata.path}:{line}", hint=hint)
    if keys.by_file:
        short = {key: (ENDING.sub("", key[0]),) for key in said}
        count = Counter(short.values())
        said |= {short[key]: one for key, one in dict(said).items() if count[short[key]] == 1}
    return said


def _refuse_lacking(table: CsvTable, metadata: CsvTable, lacking: Sequence[str], keys: _Keys) -> None:
    """Raise UserError if no score has a row, or some have none and the scores alone do not say arm and patient."""
    if len(lacking) == len(table.rows) or (lacking and not {"arm", "patient"} <= set(table.columns)):
        named = ", ".join(first_of(list(dict.fromkeys(lacking)), NAMED))
        there = ", ".join(first_of([" ".join(keys.of_metadata(row)) for _, row in metadata.rows], NAMED))
        what = f"no row for {len(lacking)} of {len(table.rows)} rows of {table.path} ({named})"
        raise UserError(what, where=metadata.path, hint=f"Joined by {' and '.join(keys.theirs)}: it has {there}.")
