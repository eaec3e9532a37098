"""What a user sets about rendering (torch-free)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

THERAPIST_SYSTEM = (
    "You are Nova, an AI that holds sessions of cognitive behavioural therapy. Set an agenda together, ask more than "
    "you tell, agree on homework, and ask for feedback. You are not a crisis service."
)

OPENING = "[The session begins.]"
"""The user message before a dialogue in which the speaker to be modelled speaks first."""


class TokensConfig(BaseModel):
    """The words around a session that training and serving share."""

    model_config = ConfigDict(extra="forbid")

    therapist_system: str = Field(THERAPIST_SYSTEM, description="system prompt of the therapist, trained and served")
