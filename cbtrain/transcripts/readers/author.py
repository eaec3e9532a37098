"""Reader for the repository of the 2024 study (Tahir): ``Synthetic_Transcripts/depression_set_N/session_M.json``.

Only the training transcripts are read, never the simulations beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.text.words import count_words
from cbtrain.transcripts.labels import AUTHOR_LABELS, parse_labelled
from cbtrain.transcripts.profile import Profile, parse_author_profile
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import parse_json, read_text
from cbtrain.transcripts.types import Session

TRANSCRIPTS = "Synthetic_Transcripts"
SET = re.compile(r"depression_set_(\d{1,9})")
SESSION = re.compile(r"session_(\d{1,9})\.json(?:\.gz)?")


def detects(path: Path) -> bool:
    return path.is_dir() and (
        path.name == TRANSCRIPTS or (path / TRANSCRIPTS).is_dir() or SET.fullmatch(path.name) is not None
    )


def sessions(path: Path, options: ReadOptions) -> Iterator[Session]:
    """Yield all sets in the order of their numbers. A session without any labelled turn is kept, its text as
    preamble."""
    for folder in _sets(path):
        course = f"set-{_number(folder, SET)}"
        for file in _numbered(folder, SESSION):
            try:
                transcript = _text_of(_object(file), "transcript", file)
                preamble, turns = parse_labelled(transcript, options.labels or AUTHOR_LABELS)
                yield Session(
                    course,
                    _number(file, SESSION),
                    turns,
                    str(file),
                    preamble=preamble,
                    source_words=count_words(transcript),
                )
            except UserError as error:
                options.on_bad(error)


def profiles(path: Path, options: ReadOptions) -> dict[str, Profile]:
    """``patient_profile.json`` of each set that has one."""
    by_course = {}
    for folder in _sets(path):
        course = f"set-{_number(folder, SET)}"
        for file in (folder / "patient_profile.json", folder / "patient_profile.json.gz"):
            if file.exists() or file.is_symlink():
                try:
                    by_course[course] = parse_author_profile(course, _object(file), file)
                except UserError as error:
                    options.on_bad(error)
    return by_course


def _sets(path: Path) -> list[Path]:
    if SET.fullmatch(path.name):
        return [path]
    root = path if path.name == TRANSCRIPTS else path / TRANSCRIPTS
    if not root.is_dir():
        raise UserError(f"no {TRANSCRIPTS}/ in it", where=path, hint="Name the author's repository.")
    return _numbered(root, SET)


def _object(file: Path) -> dict[str, Any]:
    content = parse_json(read_text(file), file)
    if not isinstance(content, dict):
        raise UserError("not a JSON object", where=file, hint="Correct or remove the file.")
    return content


def _text_of(content: dict[str, Any], key: str, file: Path) -> str:
    text = content.get(key)
    if not isinstance(text, str):
        problem = f"{key}: {'missing' if text is None else 'not a text'}"
        raise UserError(problem, where=file, hint="Correct or remove the file.")
    return text


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return sorted((p for p in folder.iterdir() if pattern.fullmatch(p.name)), key=lambda p: (_number(p, pattern), p))


def _number(path: Path, pattern: re.Pattern[str]) -> int:
    match = pattern.fullmatch(path.name)
    assert match is not None
    return int(match.group(1))
