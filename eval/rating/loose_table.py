"""Tables of scores that cbtrain did not write: columns under other names, and without those that say nothing new.

Arm, patient and a score are needed; :func:`completed` adds the other columns of a ``scores.csv`` and says what it took
for granted. Tables that have all of its columns stay as they are, and are read as strictly as ever.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cbtrain.errors import UserError, first_of, nearest
from cbtrain.eval.rating.course_columns import OPTIONAL, PHASE, SESSION, SIMULATOR, all_numbers, optional_headers
from cbtrain.eval.rating.csv_table import CsvTable, with_decimal_points
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import FIXED, TOTAL
from cbtrain.patients.case import COLUMNS

JUDGE = "judge"
"""Name of the judge of a table that names none."""

DEFAULTS = {
    "session_id": "an id from arm, patient and seed",
    "seed": "sessions in the order of rows",
    "judge": "one judge",
    "repeat": "one rating of a session by a judge",
    "status": "every session with a score is ok",
}
"""What is taken for granted without a column."""

MOST_NAMED = 8


def with_columns(table: CsvTable, mapping: Mapping[str, str]) -> CsvTable:
    """Return ``table`` with its columns under our names: ``mapping`` gives the table's name for ours, as far as it is
    there. A column that is called like one of ours but for its case is that one, and a note says so. Raises UserError
    if our name is there already."""
    names = {theirs: ours for ours, theirs in mapping.items() if theirs in table.columns and theirs != ours}
    notes = []
    for ours in (*FIXED, *OPTIONAL, TOTAL):
        alike = [column for column in table.columns if column.casefold() == ours and column not in names]
        if ours not in table.columns and ours not in mapping and len(alike) == 1:
            names[alike[0]] = ours
            notes.append(f"column {alike[0]!r} is read as {ours}")
    for theirs, ours in names.items():
        if ours in table.columns and ours not in names:
            what = f"column {theirs!r} is to be read as {ours}, and there is a column {ours!r}"
            raise UserError(what, where=table.path, hint="Rename one of them, or leave it out of --map.")
    if not names:
        return table
    columns = [names.get(column, column) for column in table.columns]
    rows = [(line, {names.get(column, column): cell for column, cell in row.items()}) for line, row in table.rows]
    return replace(table, columns=columns, rows=rows, notes=[*table.notes, *notes])


def require_mapped(mapping: Mapping[str, str], tables: Sequence[CsvTable]) -> None:
    """Raise UserError if a column that ``mapping`` names is in none of ``tables``."""
    there = list(dict.fromkeys(column for table in tables for column in table.columns))
    for ours, theirs in mapping.items():
        if theirs not in there:
            where = f"--map {ours}={theirs}"
            raise UserError(f"{tables[0].path} has no column {theirs!r}", where=where, hint=nearest(theirs, there))


def completed(table: CsvTable, rubric: Rubric | None) -> CsvTable:
    """Return ``table`` with all columns of a ``scores.csv``; as it is if it has them. ``rubric``: the instrument, if it
    is known, whose items are then the table's. What was left out or taken for granted is in the notes.

    Raises UserError if it has no arm, patient or score.
    """
    lacking = [name for name in (*FIXED, TOTAL) if name not in table.columns]
    if not lacking:
        return table
    headers = optional_headers(table)
    items, notes = _items(table, headers, rubric)
    _require(table, items)
    with_decimal_points(table, [*items, *([TOTAL] if TOTAL in table.columns else [])])
    rows = [(line, dict(row)) for line, row in table.rows]
    cells = [row for _, row in rows]
    for row in cells:
        scored = [row[name] for name in items] or [row[TOTAL]]
        defaults = {"judge": JUDGE, "repeat": "0", "status": "ok" if all(scored) else "unratable", TOTAL: ""}
        row.update({name: value for name, value in defaults.items() if name in lacking})
    if "seed" in lacking:
        notes += _number(cells, headers, by_id="session_id" not in lacking)
    if "session_id" in lacking:
        for row in cells:
            row["session_id"] = "/".join(filter(None, (*_place(row, headers), row["seed"])))
    taken = [f"{name} ({DEFAULTS[name]})" for name in FIXED if name in lacking]
    notes += [f"there is no column {', '.join(taken)}"] if taken else []
    columns = [*FIXED, *headers.values(), *items, TOTAL]
    kept = [(line, {name: row[name] for name in columns}) for line, row in rows]
    return replace(table, columns=columns, rows=kept, notes=[*table.notes, *notes])


def _require(table: CsvTable, items: Sequence[str]) -> None:
    """Raise UserError if arm or patient have no column, or there is no score."""
    named = ", ".join(first_of(table.columns, MOST_NAMED)) or "none"
    for name in ("arm", "patient"):
        if name not in table.columns:
            hint = f"Name the column that says it, or a table that does: --map {name}=COLUMN, --metadata TABLE. "
            raise UserError(f"column {name!r} is missing", where=table.path, hint=f"{hint}Columns: {named}.")
    if not items and TOTAL not in table.columns:
        hint = f"Give it a column total, or one for each item of a rubric. Columns: {named}."
        raise UserError("no column has scores", where=table.path, hint=hint)


def _items(table: CsvTable, headers: Mapping[str, str], rubric: Rubric | None) -> tuple[list[str], list[str]]:
    """Return the columns that are items, and notes on those that are not. They are the items of ``rubric``, or of the
    shipped one, if the table has them; else columns of numbers that sum up to the total, or all if there is none."""
    others = [name for name in table.columns if name not in (*FIXED, TOTAL, *headers.values())]
    chosen = rubric or load_rubric()
    if set(chosen.ids) <= set(others):
        items = [name for name in others if name in chosen.ids]
    elif rubric is not None:
        items = [name for name in others if name in rubric.ids]  # some, or none where there are totals alone
    else:
        items = [name for name in others if all_numbers(table, name) and name not in COLUMNS]
        if TOTAL in table.columns and not _sum_up(table, items):
            items = []
    notes = []
    if left := [name for name in others if name not in items]:
        notes.append(f"{', '.join(first_of(left, MOST_NAMED))}: no items, and left out")
    if items and rubric is None and set(items) != set(chosen.ids) and TOTAL not in table.columns:
        notes.append(f"taken as items: {', '.join(items)} (--rubric names the instrument)")
    return items, notes


def _sum_up(table: CsvTable, items: Sequence[str]) -> bool:
    """Return whether ``items`` sum up to the total in every row that has all of them, and there is such a row."""
    if not items:
        return False
    with_decimal_points(table, [*items, TOTAL])
    complete = [row for _, row in table.rows if row[TOTAL] and all(row[name] for name in items)]
    try:
        sums = [(float(row[TOTAL]), sum(float(row[name]) for name in items)) for row in complete]
    except ValueError:
        return False
    return bool(sums) and all(math.isclose(total, found, rel_tol=1e-6, abs_tol=1e-6) for total, found in sums)


def _place(row: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return what says which session a row rates, but for its seed."""
    number = row.get(headers.get(SESSION, ""), "") or row.get(headers.get(PHASE, ""), "")
    return row["arm"], row["patient"], row.get(headers.get(SIMULATOR, ""), ""), number


def _number(rows: Sequence[dict[str, str]], headers: Mapping[str, str], *, by_id: bool) -> list[str]:
    """Give each row a seed: 0 for the first session at its place, 1 for the next. Rows with one ``session_id`` rate one
    session (``by_id``); without ids so do rows of different judges, or different repeats, in their order. Return a note
    if a place has several."""
    seeds: dict[tuple[str, ...], dict[str, int]] = {}
    count: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        place = _place(row, headers)
        if by_id:
            known = seeds.setdefault(place, {})
            seed = known.setdefault(row["session_id"], len(known))
        else:
            by = (*place, row["judge"], row["repeat"])
            seed = count[by]
            count[by] += 1
        row["seed"] = str(seed)
    several = len({_place(row, headers) for row in rows if row["seed"] != "0"})
    if not several:
        return []
    return [f"{several} times a patient has several sessions with an arm and no seed: they are paired in their order"]
