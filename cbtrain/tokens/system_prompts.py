"""The system prompts of both speakers, the same in training and serving."""

from __future__ import annotations

from cbtrain.tokens.config import TokensConfig
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Role


def system_prompt(speaker: Role, config: TokensConfig, profile: Profile | None) -> str:
    """Return the system prompt of the model that plays ``speaker``."""
    return config.therapist_system if speaker == "therapist" else patient_system(profile)


def patient_system(profile: Profile | None) -> str:
    """Return the system prompt of a patient model, in training and in serving."""
    return profile.brief if profile else "You are a patient in therapy for depression."
