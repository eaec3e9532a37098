"""One reader of tables, as spreadsheets of any country save them: scores, and filled forms.

The separator is a comma, a semicolon or a tab; a first line ``sep=;`` (Excel) names it; numbers may have decimal
commas; text is UTF-8 or UTF-16. Bytes that are neither are read as Windows-1252, and that is said.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cbtrain.errors import UserError

SEPARATORS = ",;\t"
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[ \t]{0,9}(\r\n|\r|\n|$)', re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]{0,18},[0-9]{1,18}")
DECIMAL_POINT = re.compile(r"[+-]?[0-9]{0,18}\.[0-9]{1,18}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
FORMULA = re.compile(r"'{0,9}[=+@\t\r-]")
"""How a cell begins that a spreadsheet would run as a formula, or that is marked as none already."""
DIRECTIONS = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
WORKBOOKS = (b"PK", b"\xd0\xcf\x11\xe0")
"""How files of Excel and LibreOffice begin."""

Row = tuple[int, dict[str, str]]
"""The line that a row ends in, and its cells by column."""


def to_cell(text: str) -> str:
    """Return ``text`` as a cell that a spreadsheet shows and does not run: after an apostrophe if it begins with
    ``=``, ``+``, ``-``, ``@``, a tab or a carriage return."""
    return f"'{text}" if FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """Return the text of a cell of :func:`to_cell`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


@dataclass(frozen=True, slots=True)
class CsvTable:
    """``columns`` that have a name; ``rows`` that are not blank, cells stripped. ``notes``: what was guessed."""

    path: Path
    columns: list[str]
    rows: list[Row]
    separator: str
    notes: list[str] = field(default_factory=list)


def read_csv_table(path: Path, expected: Iterable[str], *, pad: bool = False) -> CsvTable:
    """Return the table at ``path``. ``expected``: columns that it should have, which tell the separator. ``pad``: rows
    that end early are filled up with empty cells, as spreadsheets cut them off.

    Raises UserError on what is no table, columns that come twice, without a name or called what no name may be, and
    rows of another length.
    """
    text, notes = read_table_text(path)
    return csv_table_of(text, path, expected, pad=pad, notes=notes)


def csv_table_of(
    text: str, path: Path, expected: Iterable[str], *, pad: bool = False, notes: Sequence[str] = ()
) -> CsvTable:
    """Return the table in ``text``, which is that of ``path``: see :func:`read_csv_table`."""
    csv.field_size_limit(sys.maxsize)  # justifications are long
    named = SEPARATOR_LINE.match(text)
    body = text[named.end() :] if named else text
    separator = named[1] if named else _separator(body, set(expected))
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator)
    try:
        rows = [(reader.line_num + bool(named), [from_cell(cell.strip()) for cell in row]) for row in reader]
    except csv.Error as error:
        raise UserError(f"malformed CSV ({error})", where=path, hint="Save it as CSV again.") from None
    (_, columns), *rows = [(line, row) for line, row in rows if any(row)] or [(1, [])]
    cells_by_line = [(line, _fitted(cells, len(columns), pad, f"{path}:{line}")) for line, cells in rows]
    for index, name in enumerate(columns):
        _check_column(name, columns, index, path, filled=any(cells[index] for _, cells in cells_by_line))
    cells_by_name = [
        (line, {name: cell for name, cell in zip(columns, cells, strict=True) if name}) for line, cells in cells_by_line
    ]
    return CsvTable(path, list(filter(None, columns)), cells_by_name, separator, list(notes))


def read_table_text(path: Path) -> tuple[str, list[str]]:
    """Return the text of the file at ``path``, and a note if its encoding was guessed. Raises UserError on workbooks
    and on what is no text."""
    hint = "Name a table (CSV)."
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError("no such file", where=path, hint=hint) from None
    except IsADirectoryError:
        raise UserError("a folder", where=path, hint=hint) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error})", where=path, hint=hint) from None
    if data.startswith(WORKBOOKS):
        raise UserError("a workbook, not a CSV", where=path, hint="Save it as CSV (UTF-8) and name that.")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if 4 * data[:200].count(0) > len(data[:200]) and not wide:
        raise UserError("not UTF-8 (it seems to be UTF-16)", where=path, hint="Save it as CSV in UTF-8.")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig"), []
    except UnicodeDecodeError as error:
        problem = error
    try:
        text = "" if wide else data.decode("cp1252")
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise UserError(f"not UTF-8 ({problem})", where=path, hint="Save it as CSV in UTF-8.")
    return text, [f"{path.name} is not UTF-8 and was read as Windows-1252: check names with other letters than a to z"]


def with_decimal_points(table: CsvTable, columns: Sequence[str]) -> None:
    """Write the numbers in ``columns`` with a point where they have a decimal comma, in place. Raises UserError where
    a comma or a point may stand between thousands."""
    marks: dict[str, str] = {}
    unsure = ""
    for line, row in table.rows:
        for name in columns:
            cell = row.get(name, "")
            comma = bool(DECIMAL_COMMA.fullmatch(cell))
            if not comma and not DECIMAL_POINT.fullmatch(cell):
                continue
            marks.setdefault("," if comma else ".", f"{cell} in line {line}")
            if re.fullmatch(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}", cell):
                unsure = unsure or f"{cell} in line {line}"
            if comma:
                row[name] = cell.replace(",", ".")
    both = len(marks) == 2
    if unsure and (both or ("," in marks and table.separator == ",")):
        beside = f" beside {marks['.' if ',' in unsure else ',']}" if both else ""
        hint = "Write every number with a decimal point, and none with a mark between thousands."
        raise UserError(f"{unsure}{beside} may be a decimal or thousands", where=table.path, hint=hint)


def number_of(text: str) -> float | None:
    """Return ``text`` as a finite number, None if it is none. Stricter than ``float``, which accepts ``1_2``."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def check_name(name: str, column: str) -> None:
    """Raise ValueError if ``name`` is empty or would damage tables and texts: by control characters, line breaks, or
    marks that change the writing direction."""
    if not name:
        raise ValueError(f"{column} is empty")
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") or letter in DIRECTIONS for letter in name):
        raise ValueError(f"{column} {name!r} has a control character")


def nearly_equal(names: Iterable[str]) -> list[list[str]]:
    """Return groups of ``names`` that differ by Unicode form, case, spaces or leading zeros only."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        plain = "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())
        groups.setdefault(re.sub(r"[0-9]{1,40}", lambda digits: digits[0].lstrip("0"), plain), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _separator(text: str, expected: set[str]) -> str:
    """Return the separator with which the header has most of the ``expected`` columns, then most columns."""

    def fit(separator: str) -> tuple[int, int]:
        try:
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
            header = next(([cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)), [])
        except csv.Error:
            return 0, 0
        return len(expected & set(header)), len(header)

    return max(SEPARATORS, key=fit)


def _fitted(cells: list[str], count: int, pad: bool, where: str) -> list[str]:
    """Return ``cells`` for ``count`` columns: empty ones behind the last column are left out."""
    if len(cells) > count and not any(cells[count:]):
        cells = cells[:count]
    if pad and len(cells) < count:
        cells = [*cells, *[""] * (count - len(cells))]
    if len(cells) != count:
        what = f"{len(cells)} cells, but {count} columns"
        raise UserError(what, where=where, hint="Correct or remove the row.")
    return cells


def _check_column(name: str, columns: Sequence[str], index: int, path: Path, *, filled: bool) -> None:
    """Raise UserError on a bad name. A column without name and content may be there: commas at line ends make it."""
    if not name and filled:
        hint = "Name it or remove it (from a data frame with index=False)."
        raise UserError(f"column {index + 1} has no name", where=path, hint=hint)
    if name and columns.count(name) > 1:
        raise UserError(f"column {name!r} comes twice", where=path, hint="Remove one of the two.")
    try:
        if name:
            check_name(name, "column")
    except ValueError as error:
        raise UserError(str(error), where=path, hint="Rename it.") from None
