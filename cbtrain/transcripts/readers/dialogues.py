"""Reader for the 2025 study's dialogues: ``ARM/simulation_N_clean_dialogue.txt``.

A turn is all text up to the next ``Patient:`` or ``Therapist:`` at the start of a line, as the study counts turns. In a
role play a therapist writes lines such as ``Partner:`` inside a turn: they belong to it. A course is one patient with
one arm, of one session; ``patient`` is N, the patient's place in the study's file of patients from 1 on.
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

ROOT = "dialogues"
FILE = re.compile(r"simulation_(\d{1,9})_clean_dialogue\.txt(?:\.gz)?")


def detects(path: Path) -> bool:
    return path.is_dir() and bool(_arms(path))


def sessions(path: Path, options: ReadOptions) -> Iterator[Session]:
    """Sessions by arm and patient; ``facts`` hold ``arm``, the name of its folder."""
    for arm in _arms(path):
        for file in _files(arm):
            try:
                yield parse_dialogue(read_text(file), arm.resolve().name, file)
            except UserError as error:
                options.on_bad(error)


def profiles(path: Path, options: ReadOptions) -> dict[str, Profile]:
    """None: the study's patients are in one file, which ``cbtrain patients`` reads."""
    return {}


def parse_dialogue(text: str, arm: str, file: Path) -> Session:
    """Return the session in one file. Raises UserError if nobody speaks in it."""
    found = FILE.fullmatch(file.name)
    assert found is not None
    text = text.replace("\r\n", "\n")
    preamble, turns = parse_labelled(text, AUTHOR_LABELS)
    if not turns:
        hint = "Correct or remove the file."
        raise UserError("no line begins with 'Patient:' or 'Therapist:'", where=file, hint=hint)
    patient = str(int(found[1]))
    return Session(f"{arm}/{patient}", 1, turns, str(file), patient, preamble, count_words(text), {"arm": arm})


def _arms(path: Path) -> list[Path]:
    """Return the folders of arms at ``path``: itself, those in it, or those in its ``dialogues/``."""
    if _files(path):
        return [path]
    for folder in (path, path / ROOT):
        if folder.is_dir():
            arms = [arm for arm in folder.iterdir() if arm.is_dir() and _files(arm)]
            if arms:
                return sorted(arms, key=lambda arm: natural_key(arm.name))
    return []


def _files(arm: Path) -> list[Path]:
    found = (file for file in arm.iterdir() if FILE.fullmatch(file.name) and file.is_file())
    return sorted(found, key=lambda file: natural_key(file.name))
