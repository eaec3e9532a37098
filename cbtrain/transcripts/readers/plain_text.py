"""Reader for plain text in which every turn begins with its speaker's label: ``Therapist: …``, ``Client: …``.

One file is one session, numbered by the digits that end its name, of the course that the rest of the name says:
``amara-1.txt`` and ``amara-2.txt`` are two sessions of ``amara``, and so are ``amara/session_1.txt`` and
``amara/session_2.txt``. A name without digits is a course of one session.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.transcripts.labels import COMMON_LABELS, parse_labelled
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.readers.canonical import read_profiles
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import files_in, read_text, stem_of
from cbtrain.transcripts.types import Session

SUFFIXES = (".txt", ".text", ".md")
NUMBERED = re.compile(
    r"(?P<course>.{0,250}?)[\s_.-]{0,20}(?:(?<![A-Za-z])(?:session|sess|s)[\s_.-]{0,20})?(?P<number>\d{1,9})",
    re.IGNORECASE,
)
GENERIC = {"", "session", "sess", "s", "transcript"}


def detects(path: Path) -> bool:
    if path.is_dir():
        return any(file.name.lower() != "readme.md" for file in files_in(path, (".txt", ".text")))
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def sessions(path: Path, options: ReadOptions) -> Iterator[Session]:
    """Yield one session per file, in natural order of their names. A file without any label is kept, with its text as
    preamble."""
    labels = options.labels or COMMON_LABELS
    for file in files_in(path, (".txt", ".text")) if path.is_dir() else [path]:
        course, number = place(file, path)
        try:
            text = read_text(file).replace("\r\n", "\n").replace("\r", "\n")
        except UserError as error:
            options.on_bad(error)
            continue
        preamble, turns = parse_labelled(text, labels, loose=True)
        yield Session(course, number, turns, str(file), preamble=preamble, source_words=len(text.split()))


def profiles(path: Path, options: ReadOptions) -> dict[str, Profile]:
    return read_profiles(path, options)


def place(file: Path, root: Path) -> tuple[str, int]:
    """Course and session number that a file's place and name say."""
    stem = stem_of(file)
    match = NUMBERED.fullmatch(stem)
    course, number = (match["course"], int(match["number"])) if match else (stem, 1)
    generic = course.lower() in GENERIC
    folder = file.parent.relative_to(root).as_posix() if root.is_dir() else "."
    if folder == ".":
        return (file.parent.resolve().name or "course") if generic else course, number
    return folder if generic or course == file.parent.name else f"{folder}/{course}", number
