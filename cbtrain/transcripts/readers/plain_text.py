"""Reader for texts in which every turn begins with its speaker's label: ``Therapist: …``, ``Client: …``. Files of text,
subtitles, transcripts of meetings and of transcription services, Word documents.

One file is one session, numbered by the digits that end its name, of the course that the rest of the name says:
``amara-1.txt`` and ``amara-2.txt`` are two sessions of ``amara``, and so are ``amara/session_1.txt`` and
``amara/session_2.txt``. A name without digits is a course of one session.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.transcripts import subtitles
from cbtrain.transcripts.exports import documents
from cbtrain.transcripts.exports.layouts import Export
from cbtrain.transcripts.mapping.config import CorpusMap, is_pattern
from cbtrain.transcripts.mapping.keys import in_path
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.readers.canonical import read_profiles
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import files_in, read_text, stem_of, suffix_of, unix_lines
from cbtrain.transcripts.types import Session

SUFFIXES = (".txt", ".text", ".md", *subtitles.SUFFIXES, *documents.SUFFIXES)
IN_FOLDERS = (".txt", ".text", *subtitles.SUFFIXES, *documents.SUFFIXES)
NO_TRANSCRIPTS = re.compile(
    r"(?:(?:readme|licen[cs]e|requirements|changelog|notice|authors|citation)\b|~\$).{0,200}", re.IGNORECASE
)
"""Names of files of projects, and of the locks of open documents, that are no transcripts."""

NUMBERED = re.compile(
    r"(?P<course>.{0,250}?)[\s_.-]{0,20}(?:(?<![A-Za-z])(?:session|sess|s)[\s_.-]{0,20})?(?P<number>\d{1,9})",
    re.IGNORECASE,
)
GENERIC = {"", "session", "sess", "s", "transcript"}
"""Names that say nothing of a course: the number is that of a session in the folder's course."""

NAME_SPEAKERS = (
    "Whisper and plain subtitles do not tell speakers apart: transcribe with speakers (WhisperX --diarize, or the "
    "meeting's own transcript), or write a label before each turn (Therapist: …)."
)

CASES = frozenset(
    "case patient client person subject participant user conversation conv dialogue dialog chat sample file id p c t "
    "pt subj".split()
)
"""Names whose number tells one patient from another: ``case_7.txt`` is no seventh session."""


def detects(path: Path) -> bool:
    return bool(text_files(path)) if path.is_dir() else path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def text_files(path: Path) -> list[Path]:
    """Return the texts: ``path`` itself, or those under the folder, in natural order of their names."""
    if not path.is_dir():
        return [path]
    return [file for file in files_in(path, IN_FOLDERS) if not NO_TRANSCRIPTS.fullmatch(file.name)]


def sessions(path: Path, options: ReadOptions) -> Iterator[Session]:
    """Yield one session per file, in natural order of their names. A file without any label is kept, with its text as
    preamble."""
    numbers: Counter[str] = Counter()
    for file in text_files(path):
        try:
            yield _session(file, path, options, numbers)
        except UserError as error:
            options.on_bad(error)


def _session(file: Path, root: Path, options: ReadOptions, numbers: Counter[str]) -> Session:
    """Return the session in one file; the map may name its course, its number and its patient by patterns on the path,
    and lines to leave out. ``numbers`` counts sessions of courses whose sessions have no number of their own."""
    export = read_export(file, options.map.encoding)
    parsed = options.labelled(export.text, str(file), tuple(export.speakers))
    if export.cues and not (parsed.turns or parsed.ignored or parsed.empty):
        raise _no_speakers(export, file)
    inside = file.relative_to(root).as_posix() if root.is_dir() else file.name
    course, number = place(file, root)
    values = {name: _in_path(options.map, name, inside, file) for name in ("course", "session", "patient_id")}
    if values["course"] is not None:
        course = values["course"]
        numbers[course] += 1
        number = numbers[course]
    if (value := values["session"]) is not None:
        if not value.isdecimal() or len(value) > 9:
            raise UserError(f"session {value!r} is not a number", where=file, hint="Correct the pattern.")
        number = int(value)
    patient, ignored = values["patient_id"] or "", sum(parsed.ignored.values())
    turns = tuple(parsed.turns)
    return Session(course, number, turns, str(file), patient, parsed.preamble, facts=parsed.facts, ignored=ignored)


def read_export(file: Path, encoding: str) -> Export:
    """Return the labelled text in ``file``. Raises UserError if it cannot be read."""
    if suffix_of(file) in documents.SUFFIXES:
        return Export(documents.text_of(file), "a Word document")
    text = unix_lines(read_text(file, encoding))
    is_subtitles = suffix_of(file) in subtitles.SUFFIXES or text.startswith("WEBVTT")
    return subtitles.export_of(text) if is_subtitles else Export(text)


def _no_speakers(export: Export, file: Path) -> UserError:
    what = f"{export.layout}, and none names its speaker"
    return UserError(what, where=file, hint=NAME_SPEAKERS)


def _in_path(corpus_map: CorpusMap, name: str, inside: str, file: Path) -> str | None:
    """Return what the map's pattern ``name`` finds in the path ``inside`` the corpus; None if it has none."""
    key: str | None = getattr(corpus_map, name)
    if key is None:
        return None
    if not is_pattern(key):
        hint = f"Texts have no keys: write a pattern on the path, such as {name}: '(?P<{name}>[^/]+)\\.txt'."
        raise UserError(f"{name}: {key!r} is not a pattern", where=file, hint=hint)
    value = in_path(key, inside, name)
    if not value:
        raise UserError(f"{name}: the pattern matches nothing in {inside!r}", where=file, hint="Correct it.")
    return value


def profiles(path: Path, options: ReadOptions) -> dict[str, Profile]:
    return read_profiles(path, options)


def place(file: Path, root: Path) -> tuple[str, int]:
    """Course and session number that a file's place and name say."""
    stem = stem_of(file)
    match = NUMBERED.fullmatch(stem)
    course, number = (match["course"], int(match["number"])) if match else (stem, 1)
    if course.lower() in CASES:
        course, number = stem, 1
    generic = course.lower() in GENERIC
    folder = file.parent.relative_to(root).as_posix() if root.is_dir() else "."
    if folder == ".":
        return (file.parent.resolve().name or "course") if generic else course, number
    return folder if generic or course == file.parent.name else f"{folder}/{course}", number
