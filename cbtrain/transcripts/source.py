"""Files as text, lines and JSON records: plain or ``.gz``, one record in memory at a time, every fault named.

A fault is handed to ``on_bad``, which raises it (:func:`refuse`, the default everywhere) or keeps it and lets reading
continue with the next record.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from cbtrain.errors import UserError
from cbtrain.text.faults import first_fault

OnBad = Callable[[UserError], None]
Model = TypeVar("Model", bound=BaseModel)

MAX_RECORD = 64 * 2**20
"""Bytes of the longest line, record or file of one session. The longest real session has some forty thousand."""

CHUNK = 2**20
BOM = b"\xef\xbb\xbf"

JSON_BLANKS = re.compile(r"[ \t\r\n]*")


def refuse(error: UserError) -> NoReturn:
    raise error


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case, without a trailing ``.gz``: ``a.jsonl.gz`` is ``.jsonl``."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def stem_of(path: Path) -> str:
    """Return the name without its suffixes: ``a.jsonl.gz`` is ``a``."""
    name = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files under ``folder`` with one of ``suffixes``, hidden ones left out, in an order that counts (2 before 10)."""
    paths = [
        path
        for path in folder.rglob("*")
        if suffix_of(path) in suffixes
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(paths, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def is_same(file: Path, other: Path | None) -> bool:
    """Return whether both are the same file, whatever they are called."""
    return other is not None and file.name == other.name and file.exists() and other.exists() and file.samefile(other)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts ``session_2`` before ``session_10``."""
    pieces: list[tuple[int, str]] = []
    digits, other = "", ""
    for character in name + "\0":
        if character in "0123456789":
            if other:
                pieces.append((-1, other))
                other = ""
            digits += character
        else:
            if digits:
                pieces.append((int(digits[:18]), digits))
                digits = ""
            other += character
    pieces.append((-1, other))
    return pieces


def read_bytes(path: Path) -> bytes:
    """Return the whole of a small file. Raises UserError if it is missing, too large or damaged."""
    try:
        with open_file(path) as file:
            data = file.read(MAX_RECORD + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None
    if len(data) > MAX_RECORD:
        raise UserError(f"larger than {MAX_RECORD >> 20} MiB", where=path, hint="Is this a transcript? Split it.")
    return data


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the whole of a small file as text. Raises UserError if it is missing, too large, damaged or not in
    ``encoding``."""
    data = read_bytes(path)
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        return _decode(data.removeprefix(BOM), path)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"not {encoding} text ({error.reason})", where=path, hint="Name another encoding.") from None


def unix_lines(text: str) -> str:
    """Return ``text`` with a line feed at the end of each line."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, on_bad: OnBad = refuse) -> Iterator[tuple[str, str]]:
    """Yield each non-blank line's place (``FILE:LINE``) and text. A line over :data:`MAX_RECORD` is a fault, never
    held."""
    try:
        with open_file(path) as file:
            number = 0
            while raw := file.readline(MAX_RECORD + 1):
                number += 1
                where = f"{path}:{number}"
                if len(raw) > MAX_RECORD and not raw.endswith(b"\n"):
                    on_bad(UserError(f"a line of more than {MAX_RECORD >> 20} MiB", where=where, hint="Split it."))
                    while raw and not raw.endswith(b"\n"):
                        raw = file.readline(CHUNK)
                    continue
                if number == 1:
                    raw = raw.removeprefix(BOM)
                if not raw.strip():
                    continue
                try:
                    yield where, _decode(raw, where)
                except UserError as error:
                    on_bad(error)
    except (OSError, EOFError, zlib.error) as error:
        on_bad(unreadable(path, error))


def read_records(path: Path, on_bad: OnBad = refuse) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each JSON object's place and content: a line of ``.jsonl``, an item of a ``.json`` array, or the one
    object."""
    for where, content in read_items(path, on_bad):
        if isinstance(content, dict):
            yield where, content
        else:
            lines = suffix_of(path) != ".json"
            hint = "Name the file .json." if isinstance(content, list) and lines else "Correct or remove it."
            what = "an array, not a JSON object" if isinstance(content, list) else "not a JSON object"
            on_bad(UserError(what, where=where, hint=hint))


def read_items(path: Path, on_bad: OnBad = refuse) -> Iterator[tuple[str, Any]]:
    """Yield the place and content of each line of ``.jsonl``, of each item of a ``.json`` array, or of the one value in
    a ``.json`` file."""
    return _array(path, on_bad) if suffix_of(path) == ".json" else _lines(path, on_bad)


def parse_json(text: str, where: object) -> Any:
    """Return ``text`` as JSON. Raises UserError with line and column, also on nesting or numbers that no transcript
    has."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        line, column = str(where), f"column {error.colno}"
        if "\n" in text.strip():  # a whole file, not one line of a file
            line = f"{where}:{error.lineno}"
        raise UserError(f"malformed JSON ({error.msg} at {column})", where=line, hint="Correct or remove it.") from None
    except (RecursionError, ValueError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"unusable JSON ({problem})", where=where, hint="Correct or remove it.") from None
    if "\\u" in text:
        _refuse_lone_surrogates(content, where)
    return content


def _lines(path: Path, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    for where, line in read_lines(path, on_bad):
        try:
            content = parse_json(line, where)
        except UserError as error:
            on_bad(error)
        else:
            yield where, content


def _array(path: Path, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    """Items of a JSON array, decoded one by one from a buffer that holds little more than one of them."""
    decoder = json.JSONDecoder()
    try:
        with open_file(path) as file:
            text = _TextBuffer(file, path)
            text.skip_space()
            if text.next != "[":
                whole = text.rest()
                first, _, rest = whole.lstrip().partition("\n")
                if first.startswith("{") and first.rstrip().endswith("}") and rest.lstrip().startswith("{"):
                    raise UserError("JSON Lines, not one JSON text", where=path, hint="Name it .jsonl.")
                yield str(path), parse_json(whole, path)
                return
            text.skip(1)
            number = 0
            while True:
                text.skip_space()
                if text.next == "]" and not number:
                    break
                number += 1
                where = f"{path}[{number}]"
                while True:
                    try:
                        item, end = decoder.raw_decode(text.buffer, text.position)
                        # A number or a word at the very end may continue in the next chunk.
                        if end < len(text.buffer) or not text.fill():
                            break
                    except (json.JSONDecodeError, RecursionError, ValueError):
                        if not text.fill():
                            _give_up(text.buffer[text.position :], where)
                if "\\u" in text.buffer[text.position : end]:
                    _refuse_lone_surrogates(item, where)
                yield where, item
                text.skip(end - text.position)
                text.skip_space()
                if text.next == "]":
                    break
                if text.next != ",":
                    raise _cut(where, "no comma after it")
                text.skip(1)
            text.skip(1)
            if text.rest().strip():
                raise UserError("text after the end of the array", where=path, hint="Put all items into one array.")
    except UserError as error:
        on_bad(error)
    except (OSError, EOFError, zlib.error) as error:
        on_bad(unreadable(path, error))


def _give_up(text: str, where: str) -> NoReturn:
    """What follows a broken item cannot be found again: the array ends here."""
    try:
        parse_json(text, where)
    except UserError as error:
        raise _cut(where, error.what) from None
    raise _cut(where, "malformed")


def _cut(where: str, what: str) -> UserError:
    return UserError(f"{what}; it and everything after it in the array is lost", where=where, hint="Correct the file.")


class _TextBuffer:
    """A window on a file's text that is filled from behind; what is before ``position`` is read, and dropped when the
    window is filled again."""

    def __init__(self, file: BufferedIOBase, path: Path) -> None:
        self.file, self.path = file, path
        self.decode = codecs.getincrementaldecoder("utf-8-sig")()
        self.buffer, self.position = "", 0
        self.fill()

    @property
    def next(self) -> str:
        """The next character; empty at the end of the window."""
        return self.buffer[self.position : self.position + 1]

    def fill(self) -> bool:
        """Read on, by at least as much as there is still, so that retries stay linear; False at the end."""
        self.buffer, self.position = self.buffer[self.position :], 0
        if len(self.buffer) > MAX_RECORD:
            raise UserError(f"an item of more than {MAX_RECORD >> 20} MiB", where=self.path, hint="Split it.")
        data = self.file.read(max(CHUNK, len(self.buffer)))
        try:
            self.buffer += self.decode.decode(data, final=not data)
        except UnicodeDecodeError:
            raise _not_utf8(data, self.path) from None
        return bool(data)

    def skip(self, count: int) -> None:
        self.position += count

    def skip_space(self) -> None:
        while True:
            match = JSON_BLANKS.match(self.buffer, self.position)
            assert match is not None
            self.position = match.end()
            if self.position < len(self.buffer) or not self.fill():
                break
        if self.position == len(self.buffer):
            raise UserError(
                "ends before its JSON does", where=self.path, hint="It seems to be cut off; fetch it again."
            )

    def rest(self) -> str:
        while self.fill():
            pass
        return self.buffer


def open_file(path: Path) -> BufferedIOBase:
    if path.is_symlink() and not path.exists():
        raise UserError("a broken link", where=path, hint=f"It points to {path.readlink()}, which is not there.")
    if path.exists() and not path.is_file():
        raise UserError("not a readable file", where=path, hint=f"It is a {'folder' if path.is_dir() else 'pipe'}.")
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")
    return path.open("rb")


def _decode(data: bytes, where: object) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _not_utf8(data, where) from None


def _not_utf8(data: bytes, where: object) -> UserError:
    likely = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:100] else ""
    problem = "not UTF-8 text" + (f", {likely} it seems" if likely else "")
    hint = f"Convert it: iconv -f {likely or 'WINDOWS-1252'} -t UTF-8."
    return UserError(problem, where=where, hint=hint)


def unreadable(path: Path, error: Exception) -> UserError:
    """Return the error for a file that cannot be read because of ``error``."""
    if isinstance(error, PermissionError):
        return UserError("permission denied", where=path, hint="Change its permissions.")
    if isinstance(error, FileNotFoundError):
        return UserError("no such file", where=path, hint="Name a file that exists.")
    if isinstance(error, (gzip.BadGzipFile, EOFError, zlib.error)):
        problem = f"damaged gzip file ({error}); what follows the damage is lost"
        return UserError(problem, where=path, hint="Fetch it again.")
    reason = getattr(error, "strerror", None) or error
    return UserError(f"not a readable file ({reason})", where=path, hint="Name a readable one.")


def _refuse_lone_surrogates(content: Any, where: object) -> None:
    """Raise UserError on half of a surrogate pair: JSON can escape it, but no file can be written with it."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise UserError("unusable JSON (nested too deeply)", where=where, hint="Correct or remove it.") from None
    except UnicodeEncodeError:
        raise UserError("half of a surrogate pair in its text", where=where, hint="Correct or remove it.") from None


def validate(model: type[Model], content: Mapping[str, Any], where: object, hint: str) -> Model:
    """Return ``content`` as ``model``. Raises UserError with the key, what is wrong with it, and ``hint``."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(first_fault(error), where=where, hint=hint) from None
