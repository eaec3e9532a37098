"""Files beside a table of people's scores: their evidence and notes, and which form gave which rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.rating.scores import ADDED_LATER, RECORDED
from cbtrain.files import unique_json


def companion_file(table: Path, kind: str) -> Path:
    """Return the file beside ``table`` with its notes (``kind``: notes.jsonl) or its forms (forms.json)."""
    return table.with_name(f"{table.stem.removesuffix('_scores')}_{kind}")


def read_notes(path: Path) -> list[dict[str, Any]]:
    """Return the evidence and notes of people's scores, each with the fields of a
    :class:`cbtrain.eval.rating.scores.Score`; empty if there is no such file. Raises UserError on a damaged line."""
    notes = []
    names = RECORDED - set(ADDED_LATER)
    for number, line in enumerate(lines_of(path), 1):
        try:
            note = unique_json(line)
        except ValueError:
            note = None
        if not (isinstance(note, dict) and names <= note.keys()):
            hint = "Restore the file from a copy, or delete it: the scores stay, without evidence and notes."
            raise UserError("damaged line", where=f"{path}:{number}", hint=hint)
        notes.append(note)
    return notes


def lines_of(path: Path) -> list[str]:
    """Return the lines that are not blank; none if there is no such file. Raises UserError if it is not UTF-8."""
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 ({error})", where=path, hint="Save it as UTF-8, or remove it.") from None
