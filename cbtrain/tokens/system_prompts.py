"""What a model is told first, in training and in serving alike."""

from __future__ import annotations

from cbtrain.tokens.config import TokensConfig
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Role


def system_prompt(speaker: Role, config: TokensConfig, profile: Profile | None) -> str:
    """For the model that plays ``speaker``."""
    return config.therapist_system if speaker == "therapist" else patient_system(profile)


def patient_system(profile: Profile | None) -> str:
    """The system prompt that a patient adapter is trained with and served with."""
    return profile.brief if profile else "You are a patient in therapy for depression."
