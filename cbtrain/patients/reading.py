"""Read patients from files: YAML, JSON, JSON Lines, tables, folders of them, and the formats of the two studies.

All faults of all files are one error; what is left out or guessed is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.patients.case import Case
from cbtrain.patients.config import TableMap
from cbtrain.patients.faults import Faults, Notes, Say, unsaid
from cbtrain.patients.other_formats import (
    case_of_profile,
    case_of_scenario,
    is_profile,
    is_scenario,
    profile_files,
)
from cbtrain.patients.record import FIX, case_of
from cbtrain.patients.table import table_cases
from cbtrain.settings import parse_yaml
from cbtrain.transcripts.mapping.tables import TABLES
from cbtrain.transcripts.source import files_in, read_items, read_text, suffix_of

YAML = (".yaml", ".yml")
JSON = (".json", ".jsonl", ".ndjson")
LIST = "patients"
"""The key under which a file may hold a list of patients."""


def read_cases(path: Path, table: TableMap | None = None, say: Say = unsaid) -> list[Case]:
    """Return the patients of a file or folder, in their order there. ``table`` says how a table is to be read.

    ``say`` takes each line of what is left out or guessed. Raises UserError with all faults: malformed files, unknown
    fields, patients without a symptom, two with one id.
    """
    faults, notes = Faults(), Notes()
    found = [one for file in _files(path, say) for one in _of_file(file, table or TableMap(), faults, notes, say)]
    places: dict[str, str] = {}
    for where, case in found:
        if case.id in places:
            problem = f"the id {case.id!r} is also that of {places[case.id]}"
            faults.add(UserError(problem, where=where, hint="Give each patient an id of their own."))
        places.setdefault(case.id, where)
    faults.refuse()
    if not found:
        raise UserError("no patient in it", where=path, hint=FIX)
    notes.tell(say)
    return [case for _, case in found]


def cases_in(content: Any, where: str, faults: Faults) -> Iterator[tuple[str, Case]]:
    """Yield place and patient of what stands in one YAML or JSON text of our schema: one patient, or a list."""
    for place, record in _records(content, where, faults):
        if case := case_of(record, place, faults):
            yield place, case


def _files(path: Path, say: Say) -> list[Path]:
    """Return the files of patients at ``path``. Raises UserError if there are none."""
    if not path.exists():
        raise UserError(
            "no such file or folder", where=path, hint="`cbtrain patients list` names the shipped libraries."
        )
    if not path.is_dir():
        if suffix_of(path) not in (*YAML, *JSON, *TABLES):
            hint = f"A file of patients is {', '.join((*YAML, *JSON, *TABLES))}, or a folder of .yaml."
            raise UserError(f"unknown kind of file {suffix_of(path) or path.name!r}", where=path, hint=hint)
        return [path]
    if profiles := profile_files(path):  # sessions stand beside them
        return profiles
    files = files_in(path, (*YAML, *JSON))
    if not files:
        raise UserError("no file of patients in it", where=path, hint=f"Put {', '.join((*YAML, *JSON))} into it.")
    if tables := files_in(path, TABLES):
        say(f"{path}: tables in a folder are passed over; name one by itself: {tables[0].name}")
    return files


def _of_file(path: Path, table: TableMap, faults: Faults, notes: Notes, say: Say) -> Iterator[tuple[str, Case]]:
    if suffix_of(path) in TABLES:
        yield from table_cases(path, table, faults, say)
        return
    for number, (place, record) in enumerate(_of_text(path, faults), 1):
        if is_scenario(record):
            case = case_of_scenario(record, number, place, faults, notes)
        elif is_profile(record):
            case = case_of_profile(record, path, place, faults, notes)
        else:
            case = case_of(record, place, faults)
        if case:
            yield place, case


def _of_text(path: Path, faults: Faults) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and content of each record of a YAML or JSON file."""
    if suffix_of(path) in YAML:
        with faults.collected():
            yield from _records(parse_yaml(lambda: read_text(path), path), str(path), faults)
        return
    for where, content in read_items(path, faults.add):
        yield from _records(content, where, faults)


def _records(content: Any, where: str, faults: Faults) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(content, dict) and isinstance(content.get(LIST), list):
        if more := sorted(map(str, content.keys() - {LIST, "schema"})):
            hint = "Put it into a patient, or remove it."
            faults.add(UserError(f"{more[0]!r} beside {LIST}", where=where, hint=hint))
        content = content[LIST]
    if isinstance(content, list):
        for number, record in enumerate(content, 1):
            yield from _one(record, f"{where}[{number}]", faults)
    else:
        yield from _one(content, where, faults)


def _one(record: Any, where: str, faults: Faults) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(record, dict):
        yield where, record
    elif record is None:
        faults.add(UserError("nothing in it", where=where, hint="Write a patient, or remove it."))
    else:
        hint = "A patient is a section of keys and values: id, name, symptoms …"
        faults.add(UserError("not a patient", where=where, hint=hint))
