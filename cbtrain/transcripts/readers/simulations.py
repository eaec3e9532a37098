"""Reader for the 2024 study's simulations: ``CBT_Simulations/ARM/CBT_Depression_Simulations_NAME/session_*.txt``.

Read only where ``CBT_Simulations``, one arm or one patient's folder is named itself: evaluations never mix with
training transcripts. A course is one patient with one arm; ``patient`` is the same name in every arm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.text.words import count_words
from cbtrain.transcripts.labels import AUTHOR_LABELS, parse_labelled
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import natural_key, read_text
from cbtrain.transcripts.types import Session

ROOT = "CBT_Simulations"
PATIENT = re.compile(r"CBT_Depression_Simulations_(.+)")
FILE = re.compile(r"session_(\d{1,9})_?(.{0,200})\.txt(?:\.gz)?")
HEADER = re.compile(r"\ASession Number:[ \t]{0,80}\d{1,9}[ \t]{0,80}\n")
NOTICE = re.compile(r"^[ \t]{0,80}\*{4}Session Terminated:[^\n]{0,200}\*{4}[ \t]{0,80}$\n?", re.MULTILINE)
ENDING = re.compile(
    r"^Termination Details:[ \t]{0,80}\n(?:Reason:[ \t]{0,80}(?P<reason>[^\n]*)\n?)?(?P<details>Details:)?",
    re.MULTILINE,
)
SUMMARY = re.compile(r"^Session Summary:[ \t]*\n?", re.MULTILINE)


def detects(path: Path) -> bool:
    return path.is_dir() and bool(path.name == ROOT or PATIENT.fullmatch(path.name) or _patients(path))


def sessions(path: Path, options: ReadOptions) -> Iterator[Session]:
    """Sessions by arm, patient and number; ``facts`` hold ``arm``, ``ending``, ``ending_details``, ``summary`` and the
    file's ``stamp``, by which score tables name it."""
    for arm in [path.parent] if PATIENT.fullmatch(path.name) else _arms(path):
        for folder in [path] if PATIENT.fullmatch(path.name) else _patients(arm):
            for file in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
                if FILE.fullmatch(file.name):
                    try:
                        yield parse_simulation(read_text(file), arm.name, folder.name, file)
                    except UserError as error:
                        options.on_bad(error)


def profiles(path: Path, options: ReadOptions) -> dict[str, Profile]:
    """None: the study's simulated patients stand in its notebooks only."""
    return {}


def parse_simulation(text: str, arm: str, folder: str, file: Path) -> Session:
    """Return the session in one file. Raises UserError if it does not begin with ``Session Number:``."""
    found_file, found_folder = FILE.fullmatch(file.name), PATIENT.fullmatch(folder)
    assert found_file is not None
    assert found_folder is not None
    number, patient = int(found_file.group(1)), found_folder.group(1)
    text = text.replace("\r\n", "\n")
    if not HEADER.match(text):
        raise UserError("does not begin with 'Session Number:'", where=file, hint="Correct or remove the file.")
    text = HEADER.sub("", text)
    facts = {"arm": arm, "stamp": found_file.group(2)}
    ends = list(ENDING.finditer(text))
    dialogue = text
    if ends:
        ending = ends[-1]
        dialogue, rest = text[: ending.start()], text[ending.end() :]
        summary = SUMMARY.search(rest)
        details = rest[: summary.start() if summary else len(rest)] if ending["details"] else ""
        facts |= {"ending": (ending["reason"] or "").strip(), "ending_details": details.strip()}
        if summary:
            facts["summary"] = rest[summary.end() :].strip()
    preamble, turns = parse_labelled(NOTICE.sub("", dialogue), AUTHOR_LABELS)
    words = count_words(dialogue)
    return Session(f"{arm}/{patient}", number, turns, str(file), patient, preamble, words, facts)


def _arms(path: Path) -> list[Path]:
    if _patients(path):
        return [path]
    return sorted((p for p in path.iterdir() if p.is_dir() and _patients(p)), key=lambda p: natural_key(p.name))


def _patients(arm: Path) -> list[Path]:
    if not arm.is_dir():
        return []
    folders = (p for p in arm.iterdir() if PATIENT.fullmatch(p.name) and p.is_dir())
    return sorted(folders, key=lambda p: natural_key(p.name))
