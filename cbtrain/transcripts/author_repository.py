"""Reader for the repository of the 2024 study (Tahir): ``Synthetic_Transcripts/depression_set_N/session_M.json``.

Only the training transcripts are read, never the simulations beside them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cbtrain.errors import UserError
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Corpus, Course, Role, Session, Turn

TRANSCRIPTS = "Synthetic_Transcripts"
LABEL = re.compile(r"^(Therapist|Patient):", re.MULTILINE)
SET = re.compile(r"depression_set_(\d+)")
SESSION = re.compile(r"session_(\d+)\.json")
NAME = re.compile(r"(?:Patient (?:Profile|Name)|Name)\W*:\W*([^\n*#]+)", re.IGNORECASE)
ROLES: dict[str, Role] = {"Therapist": "therapist", "Patient": "patient"}


class _SessionFile(BaseModel):
    model_config = ConfigDict(extra="ignore")

    transcript: str
    word_count: int | None = None


class _ProfileFile(BaseModel):
    model_config = ConfigDict(extra="ignore")

    profile: str
    characteristics: dict[str, str | list[str]] = {}


def is_author_repository(path: Path) -> bool:
    return path.is_dir() and (path.name == TRANSCRIPTS or (path / TRANSCRIPTS).is_dir())


def read_author_repository(path: Path) -> Corpus:
    """All sets in the order of their numbers; ``facts["words"]`` counts words of the raw transcripts, labels included.

    A session without any labelled turn is kept with no turns. Raises UserError on malformed files.
    """
    if not is_author_repository(path):
        raise UserError(f"no {TRANSCRIPTS}/ in it", where=path, fix="Name the author's repository.")
    root = path if path.name == TRANSCRIPTS else path / TRANSCRIPTS
    courses, words = [], 0
    for folder in _numbered(root, SET):
        course = f"set-{_number(folder, SET)}"
        sessions = []
        for file in _numbered(folder, SESSION):
            raw = _load(file, _SessionFile)
            words += len(raw.transcript.split())
            sessions.append(Session(course, _number(file, SESSION), parse_labelled(raw.transcript), str(file)))
        profile_file = folder / "patient_profile.json"
        profile = _profile(course, _load(profile_file, _ProfileFile)) if profile_file.exists() else None
        if sessions:
            courses.append(Course(course, tuple(sessions), profile))
    return Corpus(str(path), "author", tuple(courses), {"words": words})


def parse_labelled(transcript: str) -> tuple[Turn, ...]:
    """Turns of a text in which each begins with ``Therapist:`` or ``Patient:`` at the start of a line.

    A turn is everything up to the next label; text before the first label belongs to nobody and is left out.
    """
    parts = LABEL.split(transcript)
    return tuple(Turn(ROLES[label], text.strip()) for label, text in zip(parts[1::2], parts[2::2], strict=True))


def _profile(course: str, raw: _ProfileFile) -> Profile:
    found = NAME.search(raw.profile)
    # "Alex Doe (they/them)" and 'Em "M" Roe' are names with something added.
    name = " ".join(re.sub(r"\(.*|\".*\"", "", found.group(1)).split()).strip(".,") if found else course
    return Profile(
        course=course,
        name=name,
        brief=_brief(name, raw.characteristics),
        text=raw.profile.strip(),
        characteristics=raw.characteristics,
    )


def _brief(name: str, facts: dict[str, str | list[str]]) -> str:
    """One paragraph in the second person, from the labelled facts."""

    def first(key: str) -> str:
        value = facts.get(key) or ""
        return (value if isinstance(value, str) else value[0] if value else "").strip()

    sentences = [f"You are {name}, a patient in therapy for depression."]
    about = [first(key) for key in ("Age", "Gender", "Occupation") if first(key)]
    if about:
        sentences.append(f"About you: {', '.join(about)}.")
    for text, key in (
        ("Your symptoms are {}.", "Symptom_Severity"),
        ("Your engagement in therapy is {}.", "Engagement_Level"),
        ("What happened: {}.", "Life_Events"),
        ("You are {}.", "Personality_Traits"),
    ):
        if first(key):
            sentences.append(text.format(first(key).rstrip(".").lower()))
    return " ".join(sentences)


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return sorted((p for p in folder.iterdir() if pattern.fullmatch(p.name)), key=lambda p: _number(p, pattern))


def _number(path: Path, pattern: re.Pattern[str]) -> int:
    found = pattern.fullmatch(path.name)
    assert found is not None
    return int(found.group(1))


def _load(file: Path, model: type[Any]) -> Any:
    try:
        return model.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        problem = f"malformed JSON ({error.msg})"
        raise UserError(problem, where=f"{file}:{error.lineno}", fix="Mend or remove the file.") from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8 text", where=file, fix="Convert or remove the file.") from None
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
        raise UserError(problem, where=file, fix="Mend or remove the file.") from None
