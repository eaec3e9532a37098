"""One rating of one session, and the table of all of them."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from cbtrain.errors import UserError
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.files import write_atomic

Status = Literal["ok", "invalid", "refused", "truncated", "unratable", "error"]
LONGEST = 18
"""Digits of the longest whole number that a table may hold."""
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LEAST, MOST = 1e-12, 1e12
"""Points that a score may have in size, beside 0: squares of others leave what a float64 can hold."""
DIRECTIONS = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
FIXED = ("session_id", "arm", "patient", "seed", "judge", "repeat", "status")


@dataclass(slots=True)
class Score:
    """A rating; ``domains`` maps each domain to a score or None, and None is never filled in.

    ``evidence`` lists the indices of the turns behind each score; ``stopped_at`` is the first domain of the call to the
    judge that gave no usable answer.
    """

    session_id: str
    arm: str
    patient: str
    seed: int
    judge: str
    repeat: int
    status: Status
    domains: dict[str, float | None]
    evidence: dict[str, list[int]] = field(default_factory=dict)
    reason: dict[str, str] = field(default_factory=dict)
    stopped_at: str = ""

    @classmethod
    def empty(cls, session: SimulatedSession, judge: str, repeat: int, domains: Sequence[str]) -> Score:
        """Return a score of ``session`` without a value in any of ``domains``: ``unratable``, until a rater sets it."""
        values: dict[str, float | None] = dict.fromkeys(domains)
        return cls(session.id, session.arm, session.patient, session.seed, judge, repeat, "unratable", values)

    @property
    def total(self) -> float | None:
        """The sum over domains, or None unless every domain has a score."""
        values = [value for value in self.domains.values() if value is not None]
        return sum(values) if values and len(values) == len(self.domains) else None


def write_scores_csv(scores: Sequence[Score], path: Path) -> None:
    """Write one row per rating: who, how, the domains in order, the total; a missing score is an empty cell."""
    domains = list(scores[0].domains) if scores else []
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*FIXED, *domains, "total"])
    for score in scores:
        values = [score.domains.get(domain) for domain in domains]
        table.writerow([*(getattr(score, name) for name in FIXED), *map(_cell, values), _cell(score.total)])
    write_atomic(path, out.getvalue())


def read_scores_csv(path: Path) -> list[Score]:
    """Return the scores in a file of :func:`write_scores_csv`. Raises UserError with the line of a malformed row."""
    return scores_of(*read_table(path), path)


def scores_of(columns: Sequence[str], rows: Sequence[tuple[int, dict[str, str]]], path: Path) -> list[Score]:
    """Return the scores in a table that :func:`read_table` read from ``path``. Raises UserError with the line of a
    malformed row."""
    missing = [name for name in (*FIXED, "total") if name not in columns]
    if missing:
        hint = "Save it with commas." if ";" in "".join(columns) else "Name a scores.csv that cbtrain wrote."
        raise UserError(f"column {missing[0]!r} is missing", where=path, hint=hint)
    domains = [name for name in columns if name not in (*FIXED, "total")]
    if not domains:
        raise UserError("no column of a domain", where=path, hint="A table needs a column for each domain.")
    scores = []
    for line, row in rows:
        try:
            scores.append(_read_row(row, domains))
        except ValueError as error:
            raise UserError(str(error), where=f"{path}:{line}", hint="Correct or remove the row.") from None
    return scores


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns of a CSV file, and each row that is not blank with the line it ends in; cells are stripped.
    Raises UserError if the file is not UTF-8, if a column has no name, a bad one or that of another column, or if a row
    has another length."""
    csv.field_size_limit(sys.maxsize)  # justifications are long
    try:
        table = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        rows = [(table.line_num, [cell.strip() for cell in row]) for row in table]
    except FileNotFoundError:
        raise UserError("no such file", where=path, hint="Name a table of scores.") from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8", where=path, hint="Save it as CSV in UTF-8.") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot be read ({error})", where=path, hint="Name a table of scores (CSV).") from None
    (_, columns), *rows = [(line, row) for line, row in rows if any(row)] or [(1, [])]
    for line, cells in rows:
        if len(cells) != len(columns):
            what = f"{len(cells)} cells where there are {len(columns)} columns"
            raise UserError(what, where=f"{path}:{line}", hint="Correct or remove the row.")
    for index, name in enumerate(columns):
        _check_column(name, columns, index, path, filled=any(cells[index] for _, cells in rows))
    return list(filter(None, columns)), [
        (line, {name: cell for name, cell in zip(columns, cells, strict=True) if name}) for line, cells in rows
    ]


def _check_column(name: str, columns: Sequence[str], index: int, path: Path, *, filled: bool) -> None:
    """Raise UserError on a bad name. A column without name and content may be there: commas at line ends make it."""
    if not name and filled:
        hint = "Name it or take it out (of a data frame with index=False)."
        raise UserError(f"column {index + 1} has no name", where=path, hint=hint)
    if name and columns.count(name) > 1:
        raise UserError(f"column {name!r} is there twice", where=path, hint="Leave one of them out.")
    try:
        if name:
            check_name(name, "column")
    except ValueError as error:
        raise UserError(str(error), where=path, hint="Save it with commas." if "\t" in name else "Rename it.") from None


def _read_row(row: dict[str, str], domains: Sequence[str]) -> Score:
    """Return the score of one row. Raises ValueError on impossible or contradictory values."""
    values = {name: _score(row[name], name) for name in domains}
    status: Status = row["status"]  # type: ignore[assignment]
    if status not in get_args(Status):
        raise ValueError(f"unknown status {status!r}")
    for name in ("session_id", "arm", "patient", "judge"):
        check_name(row[name], name)
    score = Score(
        session_id=row["session_id"],
        arm=row["arm"],
        patient=row["patient"],
        seed=_whole(row["seed"], "seed"),
        judge=row["judge"],
        repeat=_whole(row["repeat"], "repeat"),
        status=status,
        domains=values,
    )
    if status != "ok" and score.total is not None:
        raise ValueError(f"status {status!r}, and a score in every domain")
    total = number_of(row["total"]) if row["total"] else None
    if row["total"] and total is None:
        raise ValueError(f"total: {row['total']!r} is no number")
    if total is not None and score.total is None:
        raise ValueError(f"a total ({total:g}), and a domain without a score")
    if total is not None and score.total is not None and abs(total - score.total) > 1e-6 * max(1.0, abs(total)):
        raise ValueError(f"the total is {total:g}, and the domains sum to {score.total:g}")
    return score


def _whole(text: str, name: str) -> int:
    """Return a whole number, also from 1.0 as spreadsheets and data frames write it. Raises ValueError."""
    digits = text.removesuffix(".0")
    if not (digits.removeprefix("-").isascii() and digits.removeprefix("-").isdigit()):
        raise ValueError(f"{name}: {text!r} is no whole number")
    if digits.startswith("-"):
        raise ValueError(f"{name}: {text} is below 0")
    if len(digits) > LONGEST:
        raise ValueError(f"{name}: {text[:LONGEST]}… is too large")
    return int(digits)


def check_name(name: str, column: str) -> None:
    """Raise ValueError if ``name`` is empty or would damage tables and texts: by control characters, line breaks, or
    marks that change the writing direction."""
    if not name:
        raise ValueError(f"{column} is empty")
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") or letter in DIRECTIONS for letter in name):
        raise ValueError(f"{column} {name!r} has a control character")


def _score(text: str | None, name: str) -> float | None:
    """Return a score, None if the cell is empty. Raises ValueError."""
    if not text:
        return None
    value = number_of(text)
    if value is None:
        raise ValueError(f"{name}: {text!r} is no score (an empty cell marks a missing one)")
    check_size(value, name)
    return value


def check_size(value: float, name: str) -> None:
    """Raises ValueError on a score that no scale has."""
    if value and not LEAST <= abs(value) <= MOST:
        raise ValueError(f"{name}: {value:g} is no score (0, or from {LEAST:g} to {MOST:g} in size)")


def number_of(text: str) -> float | None:
    """Return ``text`` as a finite number, None if it is none. Stricter than ``float``, which accepts ``1_2``."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
