"""What is known of one simulated patient: the schema ``cbtrain.patient/1``.

The fields follow cognitive case conceptualisation: a history, symptoms with their severity, beliefs at two levels,
situations with thought, feeling and behaviour, coping. Severity, engagement, style and risk are columns: they travel to
the scores, and subgroups are formed by them. All but ``id``, ``name`` and one symptom may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cbtrain.text.language import NAMES
from cbtrain.transcripts.types import PHASES, Phase

CASE_SCHEMA = "cbtrain.patient/1"

Severity = Literal["mild", "moderate", "severe"]
Engagement = Literal["low", "medium", "high"]
Style = Literal["plain", "upset", "verbose", "reserved", "tangential", "pleasing"]
Risk = Literal["none", "passive ideation", "active ideation", "self-harm", "past attempt"]
LaterPhase = Literal["initial", "middle", "termination"]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "severity": get_args(Severity),
    "engagement": get_args(Engagement),
    "style": get_args(Style),
    "risk": get_args(Risk),
}
"""What patients are stratified and compared by, with all values in their order."""

LATER_PHASES: tuple[LaterPhase, ...] = get_args(LaterPhase)
assert PHASES[1:] == LATER_PHASES

FIRST_SESSIONS: Mapping[Phase, int] = {"assessment": 1, "initial": 4, "middle": 8, "termination": 18}
"""The number of a phase's first session (the 2024 study's phases, :func:`cbtrain.transcripts.types.phase_of`)."""

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}\Z")


def _id(value: str) -> str:
    if not ID.match(value):
        raise ValueError("take letters, digits, - and _ for an id, at most 60")
    return value


def _said(value: str) -> str:
    value = value.strip()
    if not value:
        raise ValueError("an empty text")
    return value


Words = Annotated[str, AfterValidator(_said)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Symptom(Part):
    """A symptom: ``severity`` from 0 (absent) to 3 (severe), ``shows`` how it shows in this person's days."""

    name: Words
    severity: int = Field(ge=0, le=3)
    shows: str = ""


class Situation(Part):
    """A situation, the automatic thought in it, the feeling, and what the patient then does."""

    situation: Words
    thought: Words
    feeling: str = ""
    behaviour: str = ""


class CognitiveModel(Part):
    core_beliefs: list[Words] = Field(default_factory=list)
    intermediate_beliefs: list[Words] = Field(default_factory=list)
    situations: list[Situation] = Field(default_factory=list)
    coping: list[Words] = Field(default_factory=list)


class Later(Part):
    """What a later phase begins with: ``summary`` of the sessions before, known to patient and therapist, with the
    homework that was agreed on; ``since``: what came of it and what has happened, known to the patient alone."""

    summary: Words
    since: str = ""


class Case(Part):
    """A patient. ``complaint`` is why they come, in their own words; ``in_session`` how they are with a therapist."""

    id: Annotated[str, AfterValidator(_id)]
    name: Words
    language: str = "en"
    demographics: dict[str, str | int] = Field(default_factory=dict)
    severity: Severity | None = None
    engagement: Engagement | None = None
    style: Style | None = None
    risk: Risk | None = None
    complaint: str = ""
    history: str = ""
    symptoms: list[Symptom] = Field(min_length=1)
    cognitive_model: CognitiveModel = CognitiveModel()
    goals: list[Words] = Field(default_factory=list)
    in_session: str = ""
    phases: dict[LaterPhase, Later] = Field(default_factory=dict)

    @property
    def foreign(self) -> str:
        """Return the English name of the language, "" if that is English."""
        return "" if self.language == "en" else NAMES.get(self.language, self.language)

    @property
    def columns(self) -> dict[str, str]:
        """Return the values of :data:`COLUMNS`, as far as they are known."""
        return {name: value for name in COLUMNS if (value := getattr(self, name)) is not None}
