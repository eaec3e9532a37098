"""Read pairs from public files as they lie, and from generated ones; what cannot be used is named.

Three layouts: records (JSON lines, gzipped or not, or a table: ``title_left``, ``title_right``, ``label``), prompts
and answers (a table: ``prompt``, ``completion``), and chats (JSON lines: ``messages``). Pickles are never opened: they
can run code.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError, first_of
from cbtrain.tasks.entity_matching.pair import Counts, Pair
from cbtrain.tasks.entity_matching.prompts import records_of

PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".pt", ".pth", ".dill")

TITLES = ("title", "name")
"""Names of the column that describes a product; abt-buy has ``name``."""

SCHOLARLY = ("title", "authors", "venue", "year")
"""Columns that describe a publication, in order, with :data:`BETWEEN` between them."""
BETWEEN = "; "

LONGEST_LINE = 10_000_000
"""Characters of one line or cell."""

TOLD = 5
"""Faults of a kind that are named; the rest is counted."""

EXPECTED = "Records (title_left, title_right, label), prompts (prompt, completion) or chats (messages)."

Row = Mapping[str, Any]


SAID = re.compile(r"(yes|no)(?![a-z])", re.IGNORECASE)
"""How an answer begins that has a label: *None* and *Nothing* are none."""


class OddRow(ValueError):
    """A row that cannot be used, and why."""


@dataclass(slots=True)
class PairFile:
    """The pairs of one file, in its order, and what was found. ``rows`` counts every row that is not empty; those that
    are ``odd`` (place and reason) are not among ``pairs``. Duplicates are, as they lie: ``repeated`` counts rows whose
    pair came before, ``contradictory`` those that came before with another label."""

    path: Path
    rows: int = 0
    pairs: list[Pair] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    contradictory: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counts:
        return Counts.of(self.pairs)

    def notes(self) -> list[str]:
        """Return a line for each kind of fault."""
        without = [pair.id for pair in self.pairs if not pair.has_records]
        found = {
            "left out": self.odd,
            "there before (kept, as they lie)": self.repeated,
            "there before with the other label (kept)": self.contradictory,
            "whose two records cannot be told apart in the prompt (asked as the file does only)": without,
        }
        return [
            f"{len(what):,} of {self.rows:,} rows {text}: {'; '.join(first_of(what, TOLD))}"
            for text, what in found.items()
            if what
        ]


def read_pairs(path: str | Path) -> PairFile:
    """Return the pairs in ``path``. Raises UserError on a file that cannot be read, a pickle, and one without a usable
    pair."""
    path = Path(path)
    if _kind(path) in PICKLES:
        hint = "The JSON lines, CSV and chat files of the same set hold the same pairs."
        raise UserError("a pickle is never opened, since it can run code", where=path, hint=hint)
    found, seen = PairFile(path), dict[Any, int]()
    for place, row in _rows(path):
        found.rows += 1
        try:
            if isinstance(row, OddRow):
                raise row
            pair = _pair(row, place)
        except OddRow as error:
            found.odd.append(f"{place} ({error})")
            continue
        if pair.content in seen:
            same = seen[pair.content] == pair.label
            (found.repeated if same else found.contradictory).append(place)
        else:
            seen[pair.content] = pair.label
        found.pairs.append(pair)
    if not found.pairs:
        odd = f": {'; '.join(first_of(found.odd, TOLD))}" if found.odd else ""
        raise UserError(f"no pair can be read{odd}", where=path, hint=f"Expected: {EXPECTED}")
    return found


def _rows(path: Path) -> Iterator[tuple[str, Row | OddRow]]:
    """Yield place and content of each row that is not empty."""
    text, kind = _text(path), _kind(path)
    if kind in (".csv", ".tsv"):
        yield from _table(text, path, "\t" if kind == ".tsv" else ",")
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {number}", _object(line)


def _kind(path: Path) -> str:
    """Return the ending of the file's name, without ``.gz``, in small letters."""
    return next((suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() != ".gz"), "")


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"a damaged gzip file ({error})", where=path, hint="Download it again.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 ({error.reason} at byte {error.start})", where=path, hint=EXPECTED) from None
    except (IsADirectoryError, FileNotFoundError):
        raise UserError("no such file", where=path, hint="Name a file of pairs.") from None


def _object(line: str) -> Row | OddRow:
    if len(line) > LONGEST_LINE:
        return OddRow(f"longer than {LONGEST_LINE:,} characters")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return OddRow("not JSON")
    return content if isinstance(content, dict) else OddRow("not a JSON object")


def _table(text: str, path: Path, delimiter: str) -> Iterator[tuple[str, Row | OddRow]]:
    limit = csv.field_size_limit(LONGEST_LINE)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", strict=True)
        for number, row in enumerate(reader, 1):
            place = f"row {number}"
            if "" in row and any(row[""] or ()) and "" not in (reader.fieldnames or ()):
                yield place, OddRow("more cells than the header has columns")
            else:
                yield place, row
    except csv.Error as error:
        raise UserError(f"not a table ({error})", where=path, hint="Quote cells with commas or new lines.") from None
    finally:
        csv.field_size_limit(limit)


def _pair(row: Row, place: str) -> Pair:
    """Return the pair in ``row``. Raises OddRow."""
    if "messages" in row:
        prompt, answer = _exchange(row["messages"])
        return _asked(prompt, answer, place)
    if "prompt" in row:
        return _asked(_words(row, "prompt"), _words(row, "completion"), place)
    left, right = _record(row, "left"), _record(row, "right")
    hard = row.get("is_hard_negative")
    return Pair(str(row.get("pair_id") or place), left, right, _label(row.get("label")), _flag(hard))


def _asked(prompt: str, answer: str, place: str) -> Pair:
    """Return the pair of a prompt and its answer, which begins with Yes or No; the rest is kept."""
    if not prompt.strip():
        raise OddRow("no prompt")
    words = answer.strip()
    said = SAID.match(words)
    if said is None:
        raise OddRow("the answer begins with neither Yes nor No" if words else "no answer")
    return Pair(place, *records_of(prompt), int(said[0].lower() == "yes"), None, prompt.strip(), words[said.end() :])


def _exchange(messages: Any) -> tuple[str, str]:
    """Return question and answer of a chat, which has one each and nothing else."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise OddRow("messages is not a list of messages")
    if [message.get("role") for message in messages] != ["user", "assistant"]:
        raise OddRow("not one message of the user and one of the assistant")
    question, answer = (message.get("content") for message in messages)
    if not isinstance(question, str) or not isinstance(answer, str):
        raise OddRow("a message without words")
    return question, answer


def _record(row: Row, side: str) -> str:
    """Return the text of one record: of a publication its title, authors, venue and year; of a product its title."""
    if f"authors_{side}" in row:
        parts = [_words(row, f"{name}_{side}") for name in SCHOLARLY]
        text = BETWEEN.join(part for part in parts if part)
    else:
        names = [f"{name}_{side}" for name in TITLES if f"{name}_{side}" in row]
        if not names:
            raise OddRow(f"neither title_{side} nor name_{side}")
        text = _words(row, names[0])
    if not text:
        raise OddRow(f"the {side} record is empty")
    return text


def _words(row: Row, name: str) -> str:
    value = row.get(name)
    if isinstance(value, float) and math.isnan(value):  # as tables write a cell that is missing
        value = None
    if isinstance(value, float) and value.is_integer():  # a year beside missing ones
        value = int(value)
    if isinstance(value, dict | list):
        raise OddRow(f"{name} is not a text")
    return " ".join(str(value).split()) if isinstance(value, int) else str(value or "").strip()


def _label(value: Any) -> int:
    text = str(value).strip().lower()
    known = {"1": 1, "1.0": 1, "true": 1, "yes": 1, "0": 0, "0.0": 0, "false": 0, "no": 0}
    if text not in known:
        unlabelled = value is None or text in ("", "nan", "none")
        raise OddRow("no label" if unlabelled else f"the label {text[:20]!r} is neither 0 nor 1")
    return known[text]


def _flag(value: Any) -> bool | None:
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(str(value).lower())
