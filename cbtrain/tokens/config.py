"""Settings for turning sessions into tokens (torch-free)."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cbtrain.errors import nearest
from cbtrain.settings import SettingsConflict
from cbtrain.transcripts.types import Role

THERAPIST_SYSTEM = (
    "You are Nova, an AI that holds sessions of cognitive behavioural therapy. Set an agenda together, ask more than "
    "you tell, agree on homework, and ask for feedback. You are not a crisis service."
)

OPENING = "[The session begins.]"
"""The user message before a dialogue in which the modelled speaker speaks first."""

SESSION_OPENING = "[Session {number} begins.]"
"""The text before each session of a course that is one document."""

LEFT_OUT = "[Earlier turns are left out.]"
"""The text instead of earlier turns that did not fit into a piece of a long document."""

Supervise = Literal["therapist", "patient", "both", "everything"]
"""Whose words the loss counts. ``everything`` is the loss of the 2024 study: the prompt and history count too."""

FORMATS = ("auto", "template", "llama3.1", "qwen3", "mistral-v0.3", "plain", "alpaca")

PATTERNS = {
    "ai_limits": (
        r"(?s)\A(?=.*\ban ai\b)(?=.*(?:crisis|emergenc|inaccurate|\bwrong\b|misunderst|misread|non-?verbal|real-time|"
        r"up-to-date))"
    ),
}
"""Patterns that a weight rule may name. ``ai_limits``: a therapist that is an AI speaks about its limits."""


class WeightRule(BaseModel):
    """Turns that ``match`` have this ``weight`` in the loss; the first rule that matches a turn applies."""

    model_config = ConfigDict(extra="forbid")

    match: str = Field(description="'ai_limits', or a regular expression searched in a turn, without regard to case")
    weight: float = Field(ge=0, le=100, description="0 masks the turn, 1 is the weight of every other turn")
    role: Role | None = Field(None, description="turns of this speaker only")
    first_turns: int | None = Field(
        None,
        ge=1,
        description="only in this many turns at the beginning of a session: later, the same words may answer a danger",
    )

    @field_validator("match")
    @classmethod
    def _compiles(cls, match: str) -> str:
        try:
            re.compile(PATTERNS.get(match, match))
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        return match


class TokensConfig(BaseModel):
    """The texts around a session, the same in training and serving, and how sessions become documents."""

    model_config = ConfigDict(extra="forbid")

    system: Literal["ours", "data", "none"] = Field(
        "ours",
        description="system prompt that the therapist is trained with; ours: therapist_system; data: each session's "
        "own (therapist_system in sessions without one); none: no system message",
    )
    therapist_system: str = Field(THERAPIST_SYSTEM, description="system prompt of the therapist, trained and served")
    format: str = Field(
        "auto",
        description="auto: the tokenizer's own chat template, or a frozen one where that is unstable; plain: labels, "
        "for base models; alpaca: the 2024 study's, with recipe paper; llama3.1, qwen3, mistral-v0.3: the frozen ones",
    )
    document: Literal["session", "course"] = Field(
        "session", description="what is one document: a session, or all of a patient's sessions in order"
    )
    recipe: Literal["whole", "paper"] = Field(
        "whole",
        description="whole: each document once; paper: one record a turn with the whole history in each, as in 2024",
    )
    document_tokens: int | None = Field(
        None,
        ge=16,
        description="longest document; longer ones are cut between turns; null: what fits into a pack and into the "
        "model's positions. A document longer than a pack has a pack of its own",
    )
    carry: float = Field(
        0.25,
        ge=0,
        le=0.9,
        description="if a document is cut: share of the next piece that repeats earlier turns, unsupervised",
    )
    weights: list[WeightRule] = Field([], description="weights of turns in the loss, by rule")
    mask_pasted_summary: bool = Field(
        True, description="treat the last session's summary in a patient's first turn as context only"
    )
    cache: str = Field(
        "auto", description="folder of tokenized corpora; auto: $CBTRAIN_CACHE or ~/.cache/cbtrain; none: save nothing"
    )

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in FORMATS:
            raise ValueError(f"unknown format {name!r}. {nearest(name, FORMATS)}")
        return name

    @model_validator(mode="after")
    def _fits(self) -> TokensConfig:
        if self.recipe == "paper" and self.document == "course":
            problem = "recipe 'paper' makes a record of every turn: it needs document 'session'"
            raise SettingsConflict(problem, "recipe", "document")
        if self.format == "alpaca" and self.recipe != "paper":
            problem = "format 'alpaca' holds one answer a record: it needs recipe 'paper'"
            raise SettingsConflict(problem, "format", "recipe")
        return self
