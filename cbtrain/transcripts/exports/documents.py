"""Word documents (DOCX) as labelled text, by python-docx: paragraphs and rows of tables in their order.

Only the document's own text is read: no header, comment, footnote, text box or picture, no macro, and nothing that it
links to; python-docx's parser resolves no entity. Tracked changes are read as if they were accepted, hidden text like
any other.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.transcripts.mapping.names import SPEAKER, TEXT, TIMES, role_of
from cbtrain.transcripts.source import MAX_RECORD, read_bytes

SUFFIXES = (".docx",)
LONGEST_XML = 16 * 2**20
"""Bytes of the largest part of XML. A session of an hour has one."""

MOST_PARTS = 10_000
NUMBER_OR_TIME = re.compile(r"\d{1,6}\.?|[\[(]?\d{1,2}(?::\d{2}){1,2}(?:[.,]\d{1,3})?[\])]?")
RUNS = "./w:r | ./w:hyperlink//w:r | ./w:ins//w:r | ./w:moveTo//w:r | ./w:sdt/w:sdtContent//w:r | ./w:smartTag//w:r"
"""The stretches of a paragraph's text: without those that a tracked change deletes or moves away."""


def text_of(path: Path) -> str:
    """Return the text of a document: a line for each paragraph and row; a row of two cells is a speaker's label and
    words. Raises UserError if it cannot be read, or if python-docx is missing."""
    try:
        import docx
    except ImportError:
        hint = "pip install 'cbtrain[corpora]', or save the documents as text."
        raise UserError("Word documents need python-docx", where=path, hint=hint) from None
    data = read_bytes(path)
    _refuse_bomb(data, path)
    try:
        body = docx.Document(io.BytesIO(data)).element.body
        return "\n".join(_lines(body))
    except Exception as error:  # python-docx says in many ways that a file is damaged
        raise _unreadable(path, type(error).__name__) from None


def _refuse_bomb(data: bytes, path: Path) -> None:
    """Raise UserError on what is no zip file, and on one that unpacks to more than any transcript has."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        old = " (an old .doc?)" if data.startswith(b"\xd0\xcf\x11\xe0") else ""
        raise _unreadable(path, f"{type(error).__name__}{old}") from None
    xml = max((part.file_size for part in parts if part.filename.lower().endswith((".xml", ".rels"))), default=0)
    if len(parts) > MOST_PARTS or xml > LONGEST_XML or sum(part.file_size for part in parts) > MAX_RECORD:
        problem = "a document that unpacks to more than a transcript has"
        raise UserError(problem, where=path, hint="Save its text alone as a new document.")


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(f"not a readable Word document ({reason})", where=path, hint="Save it as .docx or .txt again.")


def _lines(body: Any) -> Iterator[str]:
    """Yield the lines of ``body`` (or of a content control in it) in their order."""
    for child in body.iterchildren():
        kind = child.tag.rpartition("}")[2]
        if kind == "p":
            yield _text(child)
        elif kind == "tbl":
            yield from _rows(child)
        elif kind in ("sdt", "sdtContent", "ins", "customXml"):
            yield from _lines(child)


def _names_both(cells: list[str]) -> bool:
    """Return whether two cells are a patient's and a therapist's common names: headings of a column for each."""
    return len(cells) == 2 and {role_of(cell, {}) for cell in cells} == {"patient", "therapist"}


def _text(paragraph: Any) -> str:
    return "".join(run.text for run in paragraph.xpath(RUNS))


def _rows(table: Any) -> Iterator[str]:
    """Yield a line for each row. The first of two cells is the speaker, after a number and a time, or before them; a
    row without it continues the one above. If the first row names both speakers, each cell is what its speaker says.
    """
    speakers: list[str] = []
    for row in table.xpath("./w:tr | ./w:ins/w:tr | ./w:sdt/w:sdtContent/w:tr"):
        cells = ["\n".join(_lines(cell)).strip() for cell in row.xpath("./w:tc | ./w:sdt/w:sdtContent/w:tc")]
        if not speakers and (speakers := cells) and _names_both(cells):
            continue
        if _names_both(speakers) and len(cells) == len(speakers):
            said = zip(speakers, cells, strict=True)
            yield from (f"{speaker.rstrip(':： ')}: {words}" for speaker, words in said if words)
            continue
        time = ""
        if len(cells) > 2 and not NUMBER_OR_TIME.fullmatch(cells[0]):
            is_time = ":" in cells[1] and NUMBER_OR_TIME.fullmatch(cells[1])  # a number alone may be an answer
            if is_time or cells[1].lower() in TIMES:
                time = cells.pop(1)
        while len(cells) > 2 and (not cells[0] or NUMBER_OR_TIME.fullmatch(cells[0])):
            cell = cells.pop(0)
            time = cell if ":" in cell else time
        if len(cells) != 2:
            yield "\t".join(filter(None, cells))
        elif cells[0].lower() not in SPEAKER or cells[1].lower() not in (*TEXT, "words"):  # no heading
            speaker, words = cells[0].rstrip(":： "), cells[1]
            stamp = f"[{time.strip('[]()')}] " if time else ""
            yield f"{stamp}{speaker}: {words}" if speaker else words
