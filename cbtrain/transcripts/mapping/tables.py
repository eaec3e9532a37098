"""Tables as rows: CSV and TSV by the standard library, Parquet and Arrow by pyarrow, one row in memory at a time."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.transcripts.source import MAX_RECORD, OnBad, open_file, suffix_of, unreadable

TEXT_TABLES = (".csv", ".tsv", ".tab")
BINARY_TABLES = (".parquet", ".arrow", ".feather")
TABLES = (*TEXT_TABLES, *BINARY_TABLES)
DELIMITERS = ",;\t|"
BATCH = 1000


def read_rows(
    path: Path, on_bad: OnBad, encoding: str = "utf-8", delimiter: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place (``FILE:LINE``, in Arrow tables ``FILE:ROW``) and the cells of each row, by column.

    Cells of CSV are text, empty where nothing is. A row with another number of cells than the header is a fault."""
    rows = _arrow_rows(path) if suffix_of(path) in BINARY_TABLES else _text_rows(path, on_bad, encoding, delimiter)
    try:
        yield from rows
    except UserError as error:
        on_bad(error)
    except (OSError, EOFError) as error:
        on_bad(unreadable(path, error))


def columns_of(path: Path, encoding: str = "utf-8", delimiter: str | None = None) -> list[str]:
    """Return the names of a table's columns. Raises UserError if it cannot be read."""
    if suffix_of(path) in BINARY_TABLES:
        return [str(name) for name in _arrow_schema(path).names]
    with open_file(path) as file:
        reader = csv.reader(
            _decoded(file, path, encoding), delimiter=delimiter or _delimiter(path, encoding), strict=True
        )
        try:
            cells = next((cells for cells in reader if not _names_delimiter(cells)), [])
            return [name.strip() for name in cells]
        except csv.Error as error:
            raise UserError(
                f"malformed table ({error})", where=path, hint="Is a quotation mark open? Save it as CSV again."
            ) from None


def _text_rows(path: Path, on_bad: OnBad, encoding: str, delimiter: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(MAX_RECORD)
    delimiter = delimiter or _delimiter(path, encoding)
    with open_file(path) as file:
        reader = csv.reader(_decoded(file, path, encoding), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        try:
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if header is None:
                    if _names_delimiter(cells):
                        continue
                    header = [name.strip() for name in cells]
                    _refuse_doubles(header, path)
                elif len(cells) == len(header):
                    yield where, dict(zip(header, cells, strict=True))
                elif any(cell.strip() for cell in cells):
                    problem = f"{len(cells)} cells, and the header has {len(header)}"
                    hint = "Correct the row, or name the delimiter in a map."
                    on_bad(UserError(problem, where=where, hint=hint))
        except csv.Error as error:
            where = f"{path}:{reader.line_num}"
            raise UserError(
                f"malformed table ({error})", where=where, hint="Is a quotation mark open? Save it as CSV again."
            ) from None


def _names_delimiter(cells: list[str]) -> bool:
    """Return whether this is Excel's line ``sep=;``."""
    return "".join(cells).lower().startswith("sep=") and len("".join(cells)) <= len("sep=;")


def _refuse_doubles(header: list[str], path: Path) -> None:
    doubled = {name for name in header if header.count(name) > 1}
    if doubled:
        raise UserError(f"two columns are called {min(doubled)!r}", where=path, hint="Rename one of them.")


def _delimiter(path: Path, encoding: str) -> str:
    """Return the delimiter that splits the header into most cells; that of a ``.tsv`` is a tab."""
    if suffix_of(path) in (".tsv", ".tab"):
        return "\t"
    with open_file(path) as file:
        lines = [line for line, _ in zip(_decoded(file, path, encoding), range(2), strict=False)]
    header = next(iter(lines), "")
    if header.lower().startswith("sep="):
        return header[4:5]
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in DELIMITERS}
    return max(counts, key=lambda mark: counts[mark])


def _decoded(file: io.BufferedIOBase, path: Path, encoding: str) -> Iterator[str]:
    """Yield the lines of a file with their ends. Raises UserError where they are not in ``encoding``."""
    name = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    number = 0
    text = io.TextIOWrapper(file, encoding=name, newline="")  # type: ignore[type-var]
    try:
        while line := text.readline(MAX_RECORD + 1):
            number += 1
            if len(line) > MAX_RECORD:
                raise UserError(
                    f"a line of more than {MAX_RECORD >> 20} MiB", where=f"{path}:{number}", hint="Split it."
                )
            yield line.replace("\0", "")
    except UnicodeDecodeError as error:
        problem = f"not {encoding} text ({error.reason})"
        hint = "Name its encoding in a map (encoding: cp1252), or convert it: iconv -f WINDOWS-1252 -t UTF-8."
        raise UserError(problem, where=f"{path}:{number + 1}", hint=hint) from None
    finally:
        if not file.closed:
            text.detach()


def _arrow() -> Any:
    # Its own allocator keeps the pages of every row group: 550 MB after 100,000 sessions. It is chosen at the import.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        import pyarrow
    except ImportError:
        hint = "pip install 'cbtrain[corpora]'"
        raise UserError("Parquet and Arrow need pyarrow", where="corpus", hint=hint) from None
    return pyarrow


def _arrow_schema(path: Path) -> Any:
    for schema, _ in _arrow_batches(path):
        return schema
    raise UserError("an empty table", where=path, hint="Name another file.")


def _arrow_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 1
    for _, batch in _arrow_batches(path):
        for row in batch.to_pylist() if batch is not None else ():
            number += 1
            yield f"{path}:{number}", row


def _arrow_batches(path: Path) -> Iterator[tuple[Any, Any]]:
    """Yield the schema with no batch, then with each batch of rows."""
    arrow = _arrow()
    try:
        if suffix_of(path) == ".parquet":
            import pyarrow.parquet

            table = pyarrow.parquet.ParquetFile(path)
            yield table.schema_arrow, None
            for group in range(table.num_row_groups):
                for batch in table.iter_batches(BATCH, row_groups=[group], use_threads=False):
                    yield table.schema_arrow, batch
            return
        import pyarrow.ipc

        with arrow.memory_map(str(path)) as source:
            try:
                stream = pyarrow.ipc.open_file(source)
                batches = (stream.get_batch(index) for index in range(stream.num_record_batches))
            except arrow.ArrowInvalid:  # as `datasets` writes it
                stream = batches = pyarrow.ipc.open_stream(source)
            yield stream.schema, None
            for batch in batches:
                for start in range(0, batch.num_rows, BATCH):
                    yield stream.schema, batch.slice(start, BATCH)
    except (arrow.ArrowException, OSError) as error:
        problem = f"not a readable table ({str(error).splitlines()[0]})"
        raise UserError(problem, where=path, hint="Fetch it again.") from None
