"""One rating of one session, and the table of all of them."""

from __future__ import annotations

import copy
import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from cbtrain.errors import UserError
from cbtrain.eval.rating.course_columns import OPTIONAL, SESSION, notes_on, optional_cells, optional_headers, place_of
from cbtrain.eval.rating.csv_table import CsvTable, check_name, number_of, read_csv_table, to_cell, with_decimal_points
from cbtrain.eval.rating.keying import AS_GIVEN, Keying
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.simulation.slots import slot_of
from cbtrain.files import write_atomic

Status = Literal["ok", "invalid", "refused", "truncated", "unratable", "error"]
LONGEST = 18
"""Digits of the longest whole number that a table may hold."""
LEAST, MOST = 1e-12, 1e12
"""Smallest and largest absolute value of a score that is not 0: squares of others may exceed what a float64 holds."""
FIXED = ("session_id", "arm", "patient", "seed", "judge", "repeat", "status")
"""Columns of every table; between ``seed`` and ``judge`` are those of
:data:`cbtrain.eval.rating.course_columns.OPTIONAL` that some session has."""

TOTAL = "total"
"""The last column; of a table that has no items, the only score, which then is its one domain."""

ADDED_LATER = ("number", "simulator", "columns", "unfounded")
"""Fields that journals and files of older versions do not have; they are written where they say something."""


@dataclass(slots=True, kw_only=True)
class Score:
    """A rating; ``domains`` maps each domain to a score or None, and None is never filled in.

    ``evidence`` lists the indices of the turns behind each score; ``stopped_at`` is the first domain of the call to the
    judge that gave no usable answer. ``requests`` name the calls to the judge, in order. ``number``, ``simulator`` and
    ``columns``: of the session, as in :class:`cbtrain.eval.simulation.runner.SimulatedSession`. Scores are as the rater
    gave them; ``keying`` says how they become a total, and is not recorded. ``unfounded``: domains for which the judge
    named evidence that is not in the session.
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
    requests: list[str] = field(default_factory=list)
    number: int = 0
    simulator: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    unfounded: list[str] = field(default_factory=list)
    keying: Keying = field(default=AS_GIVEN, compare=False, repr=False)

    @classmethod
    def empty(cls, session: SimulatedSession, judge: str, repeat: int, rubric: Rubric) -> Score:
        """Return a score of ``session`` without a value in any domain of ``rubric``: ``unratable``, until a rater sets
        it."""
        values: dict[str, float | None] = dict.fromkeys(rubric.ids)
        return cls(
            session_id=session.id,
            arm=session.arm,
            patient=session.patient,
            seed=session.seed,
            judge=judge,
            repeat=repeat,
            status="unratable",
            domains=values,
            number=session.number,
            simulator=session.simulator,
            columns=dict(session.columns),
            keying=rubric.keying,
        )

    def placed_as(self, session: SimulatedSession) -> Score:
        """Return the score with what is known of ``session`` now: more than when it was rated, perhaps."""
        number, simulator, columns = session.number, session.simulator, dict(session.columns)
        return replace(self, number=number, simulator=simulator, columns=columns)

    def record(self) -> dict[str, Any]:
        """Return the fields for a file, those of :data:`ADDED_LATER` only if they say something."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "keying"}
        return {name: copy.copy(value) for name, value in values.items() if value or name not in ADDED_LATER}

    @property
    def slot(self) -> int:
        """The place of the session among those of this patient with this arm."""
        return slot_of(self.seed, self.number, self.simulator)

    @property
    def total(self) -> float | None:
        """The sum over domains, as ``keying`` says, or None unless every domain has a score."""
        return self.keying.total(self.domains)


def status_of(domains: Mapping[str, float | None], missing: Sequence[str]) -> Status:
    """Return the status of a person's rating. One with ``missing`` domains is ``truncated``, like an LLM's answer that
    ends too early: nobody found that the rest cannot be rated."""
    return "truncated" if missing else "unratable" if None in domains.values() else "ok"


RECORDED = {entry.name for entry in fields(Score)} - {"keying"}


def is_score(value: Any) -> bool:
    """Whether ``value``, read from JSON, has the fields of a :class:`Score`, each of its kind."""
    if not isinstance(value, dict) or value.keys() - RECORDED:
        return False
    texts, counts = ("session_id", "arm", "patient", "judge"), ("seed", "repeat")
    domains, evidence, reason, columns = (value.get(name, {}) for name in ("domains", "evidence", "reason", "columns"))
    return (
        all(isinstance(value.get(name), str) for name in texts)
        and all(isinstance(value.get(name), int) for name in counts)
        and value.get("status") in get_args(Status)
        and isinstance(value.get("stopped_at", ""), str)
        and isinstance(value.get("requests", []), list)
        and all(isinstance(key, str) for key in value.get("requests", []))
        and isinstance(value.get("domains"), dict)
        and all(score is None or _is_number(score) for score in domains.values())
        and isinstance(evidence, dict)
        and all(isinstance(turns, list) and all(isinstance(i, int) for i in turns) for turns in evidence.values())
        and isinstance(reason, dict)
        and all(isinstance(text, str) for text in reason.values())
        and isinstance(value.get("number", 0), int)
        and isinstance(value.get("simulator", ""), str)
        and isinstance(value.get("unfounded", []), list)
        and all(isinstance(domain, str) for domain in value.get("unfounded", []))
        and isinstance(columns, dict)
        and all(isinstance(text, str) for text in columns.values())
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def write_scores_csv(scores: Sequence[Score], path: Path) -> None:
    """Write one row per rating: who, how, the domains in order, the total; a missing score is an empty cell. Optional
    columns are there if some session has a value in them."""
    domains = list(scores[0].domains) if scores else []
    optional = optional_cells(scores, domains)
    cut = FIXED.index("seed") + 1
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    shown = [domain for domain in domains if domain != TOTAL]
    table.writerow([*FIXED[:cut], *optional, *FIXED[cut:], *map(to_cell, shown), TOTAL])
    for row, score in enumerate(scores):
        texts = [to_cell(str(getattr(score, name))) for name in FIXED]
        texts[cut:cut] = [to_cell(column[row]) for column in optional.values()]
        values = [score.domains.get(domain) for domain in shown]
        table.writerow([*texts, *map(_cell, values), _cell(score.total)])
    write_atomic(path, out.getvalue())


def read_scores_csv(path: Path, keying: Keying = AS_GIVEN) -> list[Score]:
    """Return the scores in a file of :func:`write_scores_csv`, or in a spreadsheet made of it. Raises UserError with
    the line of a malformed row."""
    return scores_of(read_csv_table(path, (*FIXED, *OPTIONAL)), keying)


def scores_of(table: CsvTable, keying: Keying = AS_GIVEN) -> list[Score]:
    """Return the scores in ``table``, whose totals are as ``keying`` says. Raises UserError with the line of a
    malformed row."""
    path, columns = table.path, table.columns
    missing = [name for name in (*FIXED, TOTAL) if name not in columns]
    if missing:
        hint = "Name a scores.csv that cbtrain wrote."
        raise UserError(f"column {missing[0]!r} is missing", where=path, hint=hint)
    headers = optional_headers(table)
    domains = [name for name in columns if name not in (*FIXED, *headers.values(), TOTAL)] or [TOTAL]
    numbers = ["seed", "repeat", *([SESSION] if SESSION in headers else [])]
    with_decimal_points(table, [*numbers, *domains, TOTAL])
    scores = []
    for line, row in table.rows:
        try:
            scores.append(_read_row(row, domains, headers, keying))
        except ValueError as error:
            raise UserError(str(error), where=f"{path}:{line}", hint="Correct or remove the row.") from None
    table.notes.extend(notes_on(table, headers, scores))
    return scores


def _read_row(row: dict[str, str], domains: Sequence[str], headers: Mapping[str, str], keying: Keying) -> Score:
    """Return the score of one row; ``headers``: of its optional columns. Raises ValueError on impossible or
    contradictory values."""
    values = {name: _score(row[name], name) for name in domains}
    status: Status = row["status"]  # type: ignore[assignment]
    if status not in get_args(Status):
        raise ValueError(f"unknown status {status!r}")
    for name in ("session_id", "arm", "patient", "judge"):
        check_name(row[name], name)
    seed = _whole(row["seed"], "seed")
    number = row.get(headers.get(SESSION, ""), "")
    place = place_of(row, headers, _whole(number, SESSION) if number else 0, seed)
    score = Score(
        session_id=row["session_id"],
        arm=row["arm"],
        patient=row["patient"],
        seed=seed,
        judge=row["judge"],
        repeat=_whole(row["repeat"], "repeat"),
        status=status,
        domains=values,
        number=place.number,
        simulator=place.simulator,
        columns=place.columns,
        keying=keying,
    )
    if status != "ok" and score.total is not None:
        raise ValueError(f"status is {status!r}, but every domain has a score")
    total = number_of(row[TOTAL]) if row[TOTAL] else None
    if row[TOTAL] and total is None:
        raise ValueError(f"total: {row[TOTAL]!r} is not a number")
    if total is not None and score.total is None:
        raise ValueError(f"there is a total ({total:g}), but a domain has no score")
    if total is not None and score.total is not None and abs(total - score.total) > 1e-6 * max(1.0, abs(total)):
        raise ValueError(f"the total is {total:g}, but the domains sum to {score.total:g}")
    return score


def _whole(text: str, name: str) -> int:
    """Return a whole number, also from 1.0 as spreadsheets and data frames write it. Raises ValueError."""
    digits = text.removesuffix(".0")
    if not (digits.removeprefix("-").isascii() and digits.removeprefix("-").isdigit()):
        raise ValueError(f"{name}: {text!r} is not a whole number")
    if digits.startswith("-"):
        raise ValueError(f"{name}: {text} is below 0")
    if len(digits) > LONGEST:
        raise ValueError(f"{name}: {text[:LONGEST]}… is too large")
    return int(digits)


def _score(text: str | None, name: str) -> float | None:
    """Return a score, None if the cell is empty. Raises ValueError."""
    if not text:
        return None
    value = number_of(text)
    if value is None:
        raise ValueError(f"{name}: {text!r} is not a score (leave the cell of a missing score empty)")
    check_size(value, name)
    return value


def check_size(value: float, name: str) -> None:
    """Raise ValueError on a score that no scale has."""
    if value and not LEAST <= abs(value) <= MOST:
        raise ValueError(f"{name}: {value:g} is not a score (0, or from {LEAST:g} to {MOST:g} in size)")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
