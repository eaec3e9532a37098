"""A table that says what files of transcripts do not: whose session each is, its number, its arm, and other facts.

CSV, TSV, Parquet or Arrow with a column ``file``: the path inside the corpus, with ``/`` and with or without its
ending. ``patient`` (or ``patient_id``), ``course`` and ``session`` say whose session it is; every other column, such as
``arm`` or ``severity``, becomes a fact of the session. Empty cells say nothing. Without a course, the sessions of one
patient with one arm are one course, in the order of their numbers, or of their files if these repeat.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from cbtrain.errors import UserError, nearest
from cbtrain.files import expanded
from cbtrain.transcripts.mapping.shapes import listed
from cbtrain.transcripts.mapping.tables import TABLES, columns_of, read_rows
from cbtrain.transcripts.readers.options import Notes
from cbtrain.transcripts.source import refuse, suffix_of
from cbtrain.transcripts.types import Session

FILE = ("file", "filename", "file_name")
PATIENT = ("patient", "patient_id")
PLACE_IN_FILE = re.compile(r"(?::\d{1,12}|\[\d{1,12}\])$")
"""Line or item of a session in a file of several, at the end of :attr:`Session.where`."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of one file; ``facts`` are its other columns."""

    where: str
    patient: str = ""
    course: str = ""
    session: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def own_course(self) -> str:
        """Return the course of a patient whose table names none: theirs with one therapist, the arm."""
        arm = self.facts.get("arm")
        return f"{arm}/{self.patient}" if arm and self.patient else self.patient

    def says_the_same(self, other: Row) -> bool:
        return replace(self, where=other.where) == other


class Metadata:
    """The rows of one table, for the files of one corpus."""

    def __init__(self, path: Path, root: Path, rows: Mapping[str, Row], own_courses: bool) -> None:
        self.path, self._root, self._rows, self._own_courses = path, root, rows, own_courses
        self._by_file: dict[str, Row | None] = {}
        self._named: dict[str, str] = {}  # the first file of a row, by the row's name
        self._numbers: dict[str, set[int]] = {}  # those given so far, by course

    def apply(self, session: Session, notes: Notes) -> Session:
        """Return ``session`` with what the table says of its file; note a file of which it says nothing. Raises
        UserError if two files have one row, or its session is not a number."""
        file = Path(PLACE_IN_FILE.sub("", session.where))
        inside = file.relative_to(self._root).as_posix() if file.is_relative_to(self._root) else file.name
        if inside not in self._by_file:
            self._by_file[inside] = self._row_of(inside)
            if self._by_file[inside] is None:
                notes.add(f"metadata of files that {self.path.name} does not name", example=inside)
        row = self._by_file[inside]
        if row is None:
            return session
        course, number = row.course or (row.own_course if self._own_courses else "") or session.course, session.number
        if session.preference is not None:  # a course of its own
            if course != session.course or row.session:
                notes.add(
                    f"courses and numbers in {self.path.name}, which pairs of answers do not have", example=inside
                )
            return replace(session, patient=row.patient or session.patient, facts={**session.facts, **row.facts})
        numbers = self._numbers.setdefault(course, set())
        if row.session:
            if not row.session.isdecimal() or len(row.session) > 9:
                raise UserError(f"session {row.session!r} is not a number", where=row.where, hint="Correct the table.")
            number = int(row.session)
        elif course != session.course and number in numbers:
            number = max(numbers) + 1
        numbers.add(number)
        patient, facts = row.patient or session.patient, {**session.facts, **row.facts}
        return replace(session, course=course, number=number, patient=patient, facts=facts)

    def _row_of(self, inside: str) -> Row | None:
        """Return the row that names the file ``inside`` the corpus, by its whole path or by that without its ending."""
        names = [name for name in _names(inside) if name in self._rows]
        if len(names) > 1 and not self._rows[names[0]].says_the_same(self._rows[names[1]]):
            problem = f"{names[0]!r} and {names[1]!r} are rows of one file, and differ"
            raise UserError(problem, where=self._rows[names[1]].where, hint="Leave one of them.")
        for name in names:
            other = self._named.setdefault(name, inside)
            if other != inside:
                problem = f"{name!r} may be {other} or {inside}"
                raise UserError(problem, where=self._rows[name].where, hint="Write the file's ending too.")
        return self._rows[names[0]] if names else None

    def note_unused(self, notes: Notes) -> None:
        """Note the rows whose files were not read. Raises UserError if the table names none of the files that were."""
        unused = [name for name in self._rows if name not in self._named]
        if not self._named and self._by_file:
            near = nearest(unused[0], [*self._by_file]) if unused else ""
            files = listed([*self._by_file][:3])
            problem = f"it names no file of the corpus: it has {listed(unused[:3])}, the corpus {files}"
            hint = f"Write paths inside the corpus folder in the column file. {near}".strip()
            raise UserError(problem, where=self.path, hint=hint)
        for name in unused:
            notes.add(f"rows of {self.path.name} whose files are not there", example=name)


def load_metadata(path: str | Path, root: Path, notes: Notes, *, own_courses: bool) -> Metadata:
    """Return the table in the file ``path`` for the corpus at ``root``; ``own_courses``: a patient makes a course, if
    the table names none. Raises UserError if it cannot be read, has no column ``file``, or has two different rows of
    one file; equal ones are noted."""
    path = expanded(path)
    if suffix_of(path) not in TABLES:
        hint = "Save it as .csv, .tsv or .parquet, with a column file."
        raise UserError("not a table", where=path, hint=hint)
    if not path.is_file():
        raise UserError("no such file", where=path, hint="Name the metadata table (corpus.metadata).")
    columns = columns_of(path)
    by_name: dict[str, list[str]] = {}
    for column in columns:
        by_name.setdefault(column.strip().casefold(), []).append(column)
    doubled = [names for names in by_name.values() if len(names) > 1]
    doubled += [several for group in (FILE, PATIENT) if len(several := [n for n in group if n in by_name]) > 1]
    if doubled:
        raise UserError(f"the columns {listed(doubled[0])} say one thing", where=path, hint="Leave one of them.")
    file_column = next((by_name[name][0] for name in FILE if name in by_name), None)
    if file_column is None:
        hint = "Name the column that holds the paths of the transcripts inside their folder file."
        raise UserError(f"a table with columns {listed(columns)}: which one is the file?", where=path, hint=hint)
    rows: dict[str, Row] = {}
    for where, cells in read_rows(path, refuse):
        name = _path_in(cells[file_column])
        if not name:
            notes.add(f"rows of {path.name} without a file", example=where)
            continue
        row = _row(cells, file_column, where)
        if name not in rows:
            rows[name] = row
        elif row.says_the_same(rows[name]):
            notes.add(f"rows of {path.name} that are there twice", example=name)
        else:
            problem = f"a second row of {name!r}, which says something else than {rows[name].where}"
            raise UserError(problem, where=where, hint="Leave one of them.")
    if not rows:
        raise UserError("a table without rows", where=path, hint="Give each transcript a row.")
    return Metadata(path, root if root.is_dir() else root.parent, rows, own_courses)


def _row(cells: Mapping[str, object], file_column: str, where: str) -> Row:
    values = {column.strip(): _text(value) for column, value in cells.items() if column != file_column and _text(value)}
    parts: dict[str, str] = {}
    for column in list(values):
        name = column.casefold()
        if name in (*PATIENT, "course", "session"):
            parts["patient" if name in PATIENT else name] = values.pop(column)
        elif name == "arm":
            values["arm"] = values.pop(column)
    return Row(where, facts=values, **parts)


def _text(value: object) -> str:
    """Return a cell as text; nothing where it is empty. A whole number has no decimals."""
    if value is None or value != value:  # not a number, as pandas writes empty cells
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _path_in(value: object) -> str:
    """Return a cell of the column ``file`` as a POSIX path inside the corpus."""
    text = _text(value).replace("\\", "/")
    return PurePosixPath(text).as_posix() if text else ""


def _names(inside: str) -> Iterable[str]:
    """Return the names that a row may give the file ``inside`` the corpus: its path, and that without its endings."""
    bare = inside.removesuffix(".gz")
    without = PurePosixPath(bare).with_suffix("").as_posix() if PurePosixPath(bare).suffix else bare
    return dict.fromkeys((inside, bare, without))
