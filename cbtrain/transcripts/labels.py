"""Who speaks: labels such as ``Therapist:`` that begin a turn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cbtrain.transcripts.types import Role, Turn

AUTHOR_LABELS: Mapping[str, Role] = {"Therapist": "therapist", "Patient": "patient"}
COMMON_LABELS: Mapping[str, Role] = {
    **AUTHOR_LABELS,
    "Counselor": "therapist",
    "Counsellor": "therapist",
    "Clinician": "therapist",
    "Psychologist": "therapist",
    "Psychotherapist": "therapist",
    "Client": "patient",
}


@lru_cache(maxsize=64)
def strict_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """A label at the very start of a line, spelt exactly so, as the 2024 study's own regex has it."""
    return re.compile(rf"^({_either(labels)}):", re.MULTILINE)


@lru_cache(maxsize=64)
def loose_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """A label as people type it: any case, indented, bold in Markdown, after a time in brackets."""
    time = r"(?:[\[(]?\d{1,2}:\d{2}(?::\d{2})?[\])]?[ \t]+)?"
    return re.compile(rf"^[ \t]*{time}\**({_either(labels)})[ \t]*\**:\**[ \t]*", re.MULTILINE | re.IGNORECASE)


def parse_labelled(
    text: str, labels: Mapping[str, Role] = AUTHOR_LABELS, *, loose: bool = False
) -> tuple[str, tuple[Turn, ...]]:
    """The preamble and the turns of ``text``. A turn is everything up to the next label, stripped; the preamble is
    what stands before the first one."""
    pattern = (loose_pattern if loose else strict_pattern)(tuple(labels))
    roles = {label.lower(): role for label, role in labels.items()}
    parts = pattern.split(text)
    turns = (Turn(roles[label.lower()], said.strip()) for label, said in zip(parts[1::2], parts[2::2], strict=True))
    return parts[0].strip(), tuple(turns)


@dataclass(frozen=True, slots=True)
class InnerLabel:
    """A speaker's label at ``[start, end)`` inside a turn's text."""

    start: int
    end: int
    label: str
    role: Role


def inner_labels(text: str, names: Mapping[str, Role]) -> Iterator[InnerLabel]:
    """Labels inside a turn: a common label or one of ``names`` (a patient's or therapist's) at the start of a line,
    or ``Therapist:``/``Patient:`` right after the end of a sentence.

    A label in the middle of a sentence, or in quotation marks, is speech about labels and none.
    """
    if ":" not in text:
        return
    roles = _inner_roles(tuple(names.items()))
    for found in _inner_pattern(tuple(roles)).finditer(text):
        label = found.group(1) or found.group(2)
        yield InnerLabel(found.start(), found.end(), label, roles[label.lower()])


def names_of(full_name: str, therapist_names: Iterable[str]) -> dict[str, Role]:
    """Names that a generator may have written as labels: the patient's, whole and first, and the therapist's."""
    names: dict[str, Role] = {}
    words = [word for word in full_name.split() if word.strip(".").lower() not in TITLES]
    for name in (full_name, " ".join(words), words[0] if words else ""):
        if len(name) > 1:
            names[name] = "patient"
    return names | dict.fromkeys(therapist_names, "therapist")


TITLES = {"dr", "mr", "mrs", "ms", "mx", "prof"}


@lru_cache(maxsize=1024)
def _inner_roles(names: tuple[tuple[str, Role], ...]) -> dict[str, Role]:
    return {label.lower(): role for label, role in (*COMMON_LABELS.items(), *names)}


@lru_cache(maxsize=1024)
def _inner_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    line_start = rf"^[ \t]*\**({_either(labels)})\**:\**[ \t]*"
    # Case matters in running text: "the patient: ..." is prose.
    after_sentence = rf"(?<=[.!?…\"”)])[ \t]+((?-i:{_either(AUTHOR_LABELS)})):[ \t]+"
    return re.compile(f"{line_start}|{after_sentence}", re.MULTILINE | re.IGNORECASE)


def _either(labels: Iterable[str]) -> str:
    # The longest first, so that "Patient's mother" is not read as "Patient".
    return "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
