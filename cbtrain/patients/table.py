"""Patients in a table, one a row: columns by name or by a map, cells that hold lists, the rest as demographics."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError, nearest
from cbtrain.patients.case import COLUMNS, LATER_PHASES, Case
from cbtrain.patients.config import TableMap
from cbtrain.patients.faults import Faults, Say
from cbtrain.patients.other_formats import fact, id_from
from cbtrain.patients.record import case_of
from cbtrain.transcripts.mapping.tables import columns_of, read_rows

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "patient", "patient id", "case", "case id", "code", "course"),
    "name": ("name", "patient name", "first name", "full name"),
    "language": ("language", "lang"),
    "severity": ("severity", "symptom severity", "depression severity", "severity level"),
    "engagement": ("engagement", "engagement level"),
    "style": ("style", "conversational style", "communication style", "interaction style"),
    "risk": ("risk", "suicide risk", "risk level"),
    "complaint": ("complaint", "chief complaint", "presenting complaint", "presenting problem", "reason for referral"),
    "history": ("history", "case history", "background", "backstory", "profile", "description", "vignette"),
    "symptoms": ("symptoms", "symptom"),
    "core_beliefs": ("core beliefs", "core belief"),
    "intermediate_beliefs": ("intermediate beliefs", "intermediate belief", "rules and assumptions"),
    "situations": ("situations", "situation"),
    "coping": ("coping", "coping mechanisms", "coping strategies"),
    "goals": ("goals", "goal", "treatment goals", "therapy goals"),
    "in_session": ("in session", "presentation", "behaviour in session", "behavior in session"),
    **{
        f"{phase}_{part}": (f"{phase} {part}", f"phases {phase} {part}")
        for phase in LATER_PHASES
        for part in ("summary", "since")
    },
}
"""Our fields, and what tables call them. Upper and lower case are one, and so are ``_``, ``-``, ``.`` and blanks."""

SYMPTOM = "symptom "
"""Begins the name of a column that holds the severity of the symptom behind it: ``symptom_low mood``."""

BELIEFS = ("core_beliefs", "intermediate_beliefs", "coping")
LISTS = (*BELIEFS, "goals")
SITUATION = ("situation", "thought", "feeling", "behaviour")

WORDS = {"absent": 0, "none": 0, "no": 0, "mild": 1, "moderate": 2, "severe": 3}
CLOSE = 0.8


def table_cases(path: Path, table: TableMap, faults: Faults, say: Say) -> Iterator[tuple[str, Case]]:
    """Yield place and patient of each row of the table ``path``. ``faults`` takes what is wrong; ``say`` which columns
    are kept as demographics."""
    with faults.collected():
        fields = _fields(columns_of(path, table.encoding, table.delimiter), table, path, say)
        columns = {field: column for column, field in fields.items()}
        made = 0
        for where, row in read_rows(path, faults.add, table.encoding, table.delimiter):
            before = len(faults.found)
            record = _record(
                {key: "" if cell is None else str(cell) for key, cell in row.items()}, fields, where, faults
            )
            if not record.get("id") and record.get("name"):
                record["id"] = id_from(str(record["name"]))
                made += 1
            if "id" in record and "name" not in record:
                record["name"] = record["id"]
            if len(faults.found) == before and (case := case_of(record, where, faults, columns)):
                yield where, case
        if "name" not in columns:
            say(f"{path}: no column of names; patients are called by their ids")
        if made:
            say(f"{path}: no column of ids; ids are made from the names")


def _fields(columns: list[str], table: TableMap, path: Path, say: Say) -> dict[str, str]:
    """Return our field of each column that has one (``symptom NAME`` is one too).

    Raises UserError if the map names what is not there, or if two columns are one field.
    """
    by_name = {_plain(name): field for field, names in SYNONYMS.items() for name in (*names, field)}
    given: dict[str, str] = {}
    for wanted, column in table.columns.items():
        if column not in columns:
            raise UserError(f"no column {column!r}", where=path, hint=nearest(column, columns))
        if wanted not in SYNONYMS and not _plain(wanted).startswith(SYMPTOM):
            hint = nearest(wanted, SYNONYMS)
            raise UserError(f"unknown field {wanted!r} in the map", where=path, hint=f"{hint} Or symptom_NAME.")
        given[column] = wanted if wanted in SYNONYMS else _symptom(wanted)
    fields: dict[str, str] = {}
    kept: list[str] = []
    for column in columns:
        plain = _plain(column)
        field = given.get(column) or by_name.get(plain)
        if field in given.values() and column not in given:  # the map takes that field from elsewhere
            field = None
        elif field is None and plain.startswith(SYMPTOM):
            field = _symptom(column)
        if field is None:
            close = difflib.get_close_matches(plain, by_name, n=1, cutoff=CLOSE)
            kept.append(f"{column} (or is it {by_name[close[0]]}?)" if close else column)
        elif field in fields.values():
            both = [name for name, other in fields.items() if other == field]
            hint = f"Rename one, or say which in a map: columns: {{{field}: {column}}}."
            raise UserError(f"columns {both[0]!r} and {column!r} are both {field}", where=path, hint=hint)
        else:
            fields[column] = field
    if kept:
        say(f"{path}: kept as demographics: {', '.join(kept)}")
    return fields


def _plain(name: str) -> str:
    """A column's name in lower case, its words parted by one blank."""
    for mark in "_-.:":
        name = name.replace(mark, " ")
    return " ".join(name.lower().split())


def _symptom(name: str) -> str:
    return SYMPTOM + _plain(name)[len(SYMPTOM) :]


def _record(row: Mapping[str, str], fields: Mapping[str, str], where: str, faults: Faults) -> dict[str, Any]:
    """Return a row as a record of the schema; its empty cells are left out."""
    record: dict[str, Any] = {"symptoms": [], "demographics": {}, "cognitive_model": {}, "phases": {}}
    for column, cell in row.items():
        text, field = cell.strip(), fields.get(column)
        if not text:
            continue
        with faults.collected():
            if field is None:
                record["demographics"][column] = fact(text)
            elif field.startswith(SYMPTOM):
                severity = _level(text, f"{where}, column {column!r}")
                record["symptoms"].append({"name": field[len(SYMPTOM) :], "severity": severity})
            elif field == "symptoms":
                record["symptoms"] += _symptoms(text, f"{where}, column {column!r}")
            elif field == "situations":
                record["cognitive_model"]["situations"] = _situations(text, f"{where}, column {column!r}")
            elif field in LISTS:
                (record["cognitive_model"] if field in BELIEFS else record)[field] = _items(text)
            elif field.partition("_")[0] in LATER_PHASES:
                phase, _, part = field.partition("_")
                record["phases"].setdefault(phase, {})[part] = text
            else:
                record[field] = text.lower() if field in (*COLUMNS, "language") else text
    return record


def _items(text: str) -> list[str]:
    """The entries of a cell: one a line, or with ``;`` between them."""
    return [entry.strip() for line in text.splitlines() for entry in line.split(";") if entry.strip()]


def _symptoms(text: str, where: str) -> list[dict[str, Any]]:
    """``low mood: 2; sleep (3)`` as symptoms. Raises UserError on one without a severity."""
    entries = _items(text)
    if len(entries) == 1 and entries[0].count(":") > 1:
        entries = [entry.strip() for entry in entries[0].split(",") if entry.strip()]
    symptoms = []
    for entry in entries:
        mark = next((mark for mark in ":=(" if mark in entry), " ")
        name, _, severity = entry.rstrip(" )").rpartition(mark)
        if not name.strip():
            raise UserError(
                f"no severity of {entry!r}", where=where, hint="Write 'low mood: 2; sleep: 3', from 0 to 3."
            )
        symptoms.append({"name": name.strip(), "severity": _level(severity, where)})
    return symptoms


def _level(text: str, where: str) -> int:
    """Return a severity from 0 to 3, which may be written ``2,0`` or ``moderate``. Raises UserError."""
    text = text.strip().lower()
    level = WORDS[text] if text in WORDS else fact(text)
    if not isinstance(level, int) or not 0 <= level <= 3:
        hint = "A symptom's severity is 0 (absent), 1 (mild), 2 (moderate) or 3 (severe)."
        raise UserError(f"{text!r} is no severity", where=where, hint=hint)
    return level


def _situations(text: str, where: str) -> list[dict[str, str]]:
    """``situation | thought | feeling | behaviour`` of each entry. Raises UserError where the thought is missing."""
    situations = []
    for entry in _items(text):
        parts = [part.strip() for part in entry.split("|")]
        if not 2 <= len(parts) <= len(SITUATION):
            hint = f"Write '{' | '.join(SITUATION)}'; the last two may be left out."
            raise UserError(f"{len(parts)} parts in the situation {entry[:40]!r}", where=where, hint=hint)
        situations.append(dict(zip(SITUATION, parts, strict=False)))
    return situations
