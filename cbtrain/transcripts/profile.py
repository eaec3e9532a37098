"""Who the patient is: the profile that simulation, rendering and synthesis are given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.transcripts.source import validate

PROFILE_SCHEMA = "cbtrain.profile/1"
FIX = "A profile has a name, a brief and characteristics."
NAME = re.compile(r"(?:Patient (?:Profile|Name)|Name)\W{0,20}:\W{0,20}([^\n*#]+)", re.IGNORECASE)


class Profile(BaseModel):
    """A patient's profile, schema ``cbtrain.profile/1``.

    ``brief`` is one short paragraph in the second person ("You are …"), used as the system prompt of a simulated
    patient; ``text`` is the full prose; ``characteristics`` are labelled facts (age, severity, engagement, …).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    course: str = Field(min_length=1)
    name: str
    brief: str
    text: str = ""
    characteristics: dict[str, str | list[str]] = Field(default_factory=dict)

    def first(self, key: str) -> str:
        """Return the first value of a characteristic, or an empty text; upper and lower case, ``_`` and space are
        one."""
        for name, value in self.characteristics.items():
            if _key(name) == _key(key):
                return (value if isinstance(value, str) else value[0] if value else "").strip()
        return ""


class _AuthorProfile(BaseModel):
    """``patient_profile.json`` of the 2024 study: prose and drawn facts."""

    model_config = ConfigDict(extra="ignore")

    profile: str
    characteristics: dict[str, str | list[str]] = {}


def parse_profile(content: Mapping[str, Any], where: object) -> Profile:
    """Return a profile in our schema, its ``schema`` key taken off. Raises UserError with the place."""
    return validate(Profile, content, where, FIX)


def parse_author_profile(course: str, content: Mapping[str, Any], where: object) -> Profile:
    """Return a profile in the 2024 study's schema. Its prose names the patient; what it does not name is called
    ``course``."""
    raw = validate(_AuthorProfile, content, where, FIX)
    match = NAME.search(raw.profile)
    # "Alex Doe (they/them)" and 'Em "M" Roe' are names with something added.
    name = " ".join(re.sub(r"\(.*|\"[^\"]{0,80}\"", "", match.group(1)).split()).strip(".,") if match else ""
    profile = Profile(
        course=course, name=name or course, brief="", text=raw.profile.strip(), characteristics=raw.characteristics
    )
    return profile.model_copy(update={"brief": _brief(profile)})


def _brief(profile: Profile) -> str:
    """Return one paragraph in the second person, from the labelled facts."""
    sentences = [f"You are {profile.name}, a patient in therapy for depression."]
    about = [profile.first(key) for key in ("Age", "Gender", "Occupation") if profile.first(key)]
    if about:
        sentences.append(f"About you: {', '.join(about)}.")
    for text, key in (
        ("Your symptoms are {}.", "Symptom_Severity"),
        ("Your engagement in therapy is {}.", "Engagement_Level"),
        ("What happened: {}.", "Life_Events"),
        ("You are {}.", "Personality_Traits"),
    ):
        if profile.first(key):
            sentences.append(text.format(profile.first(key).rstrip(".").lower()))
    return " ".join(sentences)


def _key(name: str) -> str:
    return name.lower().replace("_", " ").strip()
