"""Optional columns of a table of scores: where a session stands in its course, who played the patient, who that was.

``session`` (number in the course, from 1), ``phase``, ``simulator``, and the columns of a patient: severity,
engagement, style, risk (:data:`cbtrain.patients.case.COLUMNS`). A rubric may have a domain called like one of the last
four: a column of numbers is a domain. The patient's is then called ``patient_severity``, say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from cbtrain.errors import UserError
from cbtrain.eval.rating.csv_table import DECIMAL_COMMA, CsvTable, check_name
from cbtrain.eval.simulation.slots import why_no_slot
from cbtrain.patients.case import COLUMNS, FIRST_SESSIONS
from cbtrain.transcripts.types import PHASES, phase_of

SESSION, PHASE, SIMULATOR = "session", "phase", "simulator"
OPTIONAL = (SESSION, PHASE, SIMULATOR, *COLUMNS)
"""In the order in which they are written."""

PREFIX = "patient_"


class Placed(Protocol):
    """Whatever knows its session's ``number`` in the course (0: none), ``simulator`` and patient's ``columns``."""

    number: int
    simulator: str
    columns: dict[str, str]


class Place(NamedTuple):
    """What the optional cells of a row say; ``columns``: only those with a value."""

    number: int
    simulator: str
    columns: dict[str, str]


def optional_cells(scores: Sequence[Placed], domains: Sequence[str]) -> dict[str, list[str]]:
    """Return the optional columns that any of ``scores`` has, by their headers in a table with these ``domains``: one
    text for each score, empty where it is not known."""
    cells = {
        SESSION: [str(score.number or "") for score in scores],
        PHASE: [phase_of(score.number) if score.number else "" for score in scores],
        SIMULATOR: [score.simulator for score in scores],
        **{name: [score.columns.get(name, "") for score in scores] for name in COLUMNS},
    }
    return {PREFIX * (name in domains) + name: texts for name, texts in cells.items() if any(texts)}


def optional_headers(table: CsvTable) -> dict[str, str]:
    """Return the headers of the optional columns in ``table``, by column. Raises UserError if two say the same."""
    headers: dict[str, str] = {}
    for header in table.columns:
        name = header.removeprefix(PREFIX)
        if name not in OPTIONAL or (header != name and name not in COLUMNS):
            continue
        if header == name and name in (PHASE, *COLUMNS) and all_numbers(table, header):
            continue  # a domain of the rubric
        if name in headers:
            what = f"columns {headers[name]!r} and {header!r} say the same"
            raise UserError(what, where=table.path, hint="Remove one of the two.")
        headers[name] = header
    return headers


def place_of(row: Mapping[str, str], headers: Mapping[str, str], number: int, seed: int) -> Place:
    """Return what the optional cells of ``row`` say; ``headers``: those of :func:`optional_headers`; ``number``: of the
    session, 0 if it has none. Raises ValueError on what contradicts itself or cannot be."""
    cells = {name: row[header] for name, header in headers.items() if row[header]}
    if text := cells.get(PHASE, ""):
        phase = next((phase for phase in PHASES if phase == text.casefold()), None)
        if phase is None:
            raise ValueError(f"phase: {text!r} is none of {', '.join(PHASES)}")
        if number and phase_of(number) != phase:
            raise ValueError(f"phase: session {number} is in {phase_of(number)}, not in {phase}")
        number = number or FIRST_SESSIONS[phase]
    simulator = cells.get(SIMULATOR, "")
    if why := why_no_slot(seed, number, simulator):
        raise ValueError(why)
    for name, text in cells.items():
        check_name(text, headers[name])
    return Place(number, simulator, known_columns(cells))


def known_columns(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the patient's columns among ``texts`` that are not empty. Known values get the house's spelling; others
    stay as they are."""
    columns = {}
    for name, values in COLUMNS.items():
        text = " ".join(texts.get(name, "").split())
        if text:
            columns[name] = next((value for value in values if value == text.casefold()), text)
    return columns


def notes_on(table: CsvTable, headers: Mapping[str, str], places: Sequence[Placed]) -> list[str]:
    """Return notes on what was guessed of the optional columns of ``table`` and on values that are not known."""
    notes = []
    if PHASE in headers:
        numbers = [row.get(headers.get(SESSION, ""), "") for _, row in table.rows]
        guessed = sum(number in ("", "0") and place.number > 0 for number, place in zip(numbers, places, strict=True))
        if guessed:
            first = ", ".join(f"{phase} {number}" for phase, number in FIRST_SESSIONS.items())
            notes.append(f"{guessed} rows name a phase and no session: the first of the phase is taken ({first})")
    for name, values in COLUMNS.items():
        found = {place.columns[name] for place in places if name in place.columns}
        if other := sorted(found - set(values)):
            known = ", ".join(values)
            notes.append(f"{name} {', '.join(map(repr, other))}: none of {known}; each is a level of its own")
    return notes


def all_numbers(table: CsvTable, header: str) -> bool:
    """Return whether the column has cells, and all of them are numbers."""
    cells = [row[header] for _, row in table.rows if row[header]]
    return bool(cells) and all(DECIMAL_COMMA.fullmatch(cell) or _is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
