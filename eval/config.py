"""Settings of an evaluation (torch-free)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cbtrain.eval.rating.config import JudgingConfig, over
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.providers.config import ProviderConfig
from cbtrain.settings import SettingsConflict

PATIENT_INSTRUCTIONS = (
    "You play a patient in a simulated therapy session, for research. Stay in character, speak in the first person "
    "and in plain spoken language, one to four sentences a turn, with no stage directions. Do not give advice, do not "
    "speak for the therapist, and do not get better faster than such a person would. When the session has come to its "
    "natural end, write [END] alone on a line."
)


THERAPIST, PATIENT = SamplingConfig(max_tokens=120), SamplingConfig(max_tokens=80)
SENT_TO_PATIENTS = ("temperature", "top_p", "max_tokens")
"""Settings of :class:`SamplingConfig` that a request to a patient's API carries."""


class EvaluationConfig(BaseModel):
    """Simulated sessions of held-out patients with each arm, and their scores."""

    model_config = ConfigDict(extra="forbid")

    max_patients: int | None = Field(None, ge=1, description="how many held-out patients to simulate; null: all")
    seeds: int = Field(2, ge=1, description="sessions of each patient with each arm")
    sessions_in_flight: int = Field(16, ge=1)
    max_turns: int = Field(20, ge=2, description="most turns of a session, of both speakers together")
    max_words: int = Field(5000, ge=10)
    therapist: Annotated[SamplingConfig, over(THERAPIST)] = THERAPIST
    engine: EngineConfig = Field(default_factory=EngineConfig)
    deterministic: bool = Field(
        False,
        description="same logits whatever else is in a batch, to the last bit: some 1.15 times as slow on a CPU",
    )
    patient: Annotated[SamplingConfig, over(PATIENT)] = PATIENT
    patient_provider: ProviderConfig | None = Field(
        None, description="API that plays the patients; null: the patient adapter, on this machine"
    )
    patient_instructions: str = Field(
        PATIENT_INSTRUCTIONS, description="instructions to a patient behind an API; a patient adapter gets none"
    )
    judging: JudgingConfig = Field(default_factory=JudgingConfig)
    max_failures: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the sessions, or of the ratings, that may fail; above it, the run ends with status 2",
    )
    perplexity_tokens: int = Field(10_000, ge=1, description="tokens of each held-out patient's sessions to measure")

    @model_validator(mode="after")
    def _patient_can_be_asked(self) -> EvaluationConfig:
        """Raise SettingsConflict on a setting of the patient that requests to its API would leave out."""
        if self.patient_provider is None:
            return self
        for name, field in SamplingConfig.model_fields.items():
            value = getattr(self.patient, name)
            if name not in SENT_TO_PATIENTS and value != field.default:
                sent = ", ".join(SENT_TO_PATIENTS)
                problem = f"patient.{name} is {value:g}, but a patient behind an API is sent {sent} only"
                raise SettingsConflict(f"{problem}; leave it out", f"patient.{name}")
        return self
