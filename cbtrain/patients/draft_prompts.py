"""What a large model is asked for when it drafts a patient, and the shape of its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cbtrain.patients.case import Case
from cbtrain.patients.other_formats import id_from
from cbtrain.providers.types import Message
from cbtrain.text.language import language_name

AGES = ("18 to 24", "25 to 34", "35 to 44", "45 to 54", "55 to 64", "65 to 80")
GENDERS = ("woman", "man", "woman", "man", "non-binary or trans person")

RULES = (
    "You write fictional adult patients for research that compares language models as therapists with simulated "
    "patients. Nobody of them exists, and none is used for care. Write a person first: contradictions, tastes, "
    "competence, people with names, ordinary details. No caricature, no cliche, no inspirational turns. Culture, "
    "class, gender, faith and age are texture, never the cause of everything. Facts agree with each other. Symptoms "
    "have a severity of 0 (absent), 1 (mild), 2 (moderate) or 3 (severe) that fits the severity as a whole. What is "
    "said of risk fits the risk that is given, as a clinician would write it: thoughts, intent, what protects; never "
    "a method, means or place of suicide or self-harm. Engagement and style show in in_session as habits of this "
    "person. phases hold what a later phase of therapy begins with: summary (what was worked on, how it was taken, at "
    "its end the homework; about 150 words, neutral, past tense) and since (second person: what came of the homework "
    "and one event of the week). Progress is uneven. Answer with one JSON object."
)


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DraftSymptom(Part):
    name: str
    severity: Literal[0, 1, 2, 3]
    shows: str


class DraftSituation(Part):
    situation: str
    thought: str
    feeling: str
    behaviour: str


class DraftModel(Part):
    core_beliefs: list[str]
    intermediate_beliefs: list[str]
    situations: list[DraftSituation]
    coping: list[str]


class DraftFacts(Part):
    age: int
    gender: str
    occupation: str
    living: str
    country: str


class DraftLater(Part):
    summary: str
    since: str


class DraftPhases(Part):
    initial: DraftLater
    middle: DraftLater
    termination: DraftLater


class Draft(Part):
    """A patient as a model answers: all of the schema but what is given to it (columns, language) or made (id).

    Every field is required: strict structured answers of some APIs allow no other."""

    name: str
    demographics: DraftFacts
    complaint: str
    history: str
    symptoms: list[DraftSymptom]
    cognitive_model: DraftModel
    goals: list[str]
    in_session: str
    phases: DraftPhases


def draft_request(
    columns: Mapping[str, str], number: int, brief: str, language: str, example: Case | None
) -> tuple[Message, ...]:
    """Return the messages that ask for patient ``number`` (from 1) with the values ``columns``."""
    given = ", ".join(f"{column}: {value}" for column, value in columns.items())
    lines = [f"Patient {number}. Given: {given}."]
    lines.append(
        f"A {GENDERS[number % len(GENDERS)]}, {AGES[number % len(AGES)]} years old, with a first and a last name."
    )
    if brief:
        lines.append(f"What all patients have in common: {brief}")
    lines.append(f"Write in {language_name(language)}.")
    if example is not None:
        shown = example.model_dump(include=set(Draft.model_fields), mode="json")
        text = json.dumps(shown, ensure_ascii=False, indent=1)
        lines.append(f"An example of form and length, of somebody else. Take nothing of its content:\n{text}")
    return Message("system", RULES), Message("user", "\n\n".join(lines))


def record_of_draft(draft: Draft, columns: Mapping[str, str], language: str, number: int) -> dict[str, Any]:
    """Return a draft as a record of the schema ``cbtrain.patient/1``."""
    return {
        "id": id_from(draft.name) or f"patient-{number}",
        "language": language,
        **draft.model_dump(),
        **columns,
    }


def again(messages: Sequence[Message], problem: str) -> tuple[Message, ...]:
    """Return the messages that ask once more, after a draft that had a problem."""
    *before, last = messages
    text = f"{last.content}\n\nAn earlier draft could not be used ({problem}). Write another person."
    return *before, Message(last.role, text)
