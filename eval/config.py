"""What a user sets about an evaluation (torch-free)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cbtrain.eval.judge import JudgeConfig
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.layers import merge

PATIENT_INSTRUCTIONS = (
    "You play a patient in a simulated therapy session, for research. Stay in character, speak in the first person "
    "and in plain spoken language, one to four sentences a turn, with no stage directions. Do not give advice, do not "
    "speak for the therapist, and do not get better faster than such a person would. When the session has come to its "
    "natural end, write [END] alone on a line."
)


def _over(default: BaseModel) -> BeforeValidator:
    """Settings that are given one by one leave the others of ``default`` as they are; another API has its own."""
    return BeforeValidator(lambda given: merge(default.model_dump(), given) if isinstance(given, dict) else given)


JUDGE = ProviderConfig(base_url="https://api.openai.com/v1", model="gpt-4.1-mini", api_key_env="CBTRAIN_JUDGE_API_KEY")
THERAPIST, PATIENT = SamplingConfig(max_tokens=120), SamplingConfig(max_tokens=80)


class JudgingConfig(BaseModel):
    """Which rater scores the sessions.

    ``auto`` takes the LLM judge where the environment variable that ``provider.api_key_env`` names is set, and the
    embedded cue rater (a smoke test, no clinical judgement) where it is not.
    """

    model_config = ConfigDict(extra="forbid")

    rater: Literal["auto", "cue", "llm"] = "auto"
    rubric: str = Field("cbt_fidelity", description="name of a shipped rubric or path of a YAML file")
    provider: Annotated[ProviderConfig, _over(JUDGE)] = JUDGE
    judge: JudgeConfig = Field(default_factory=JudgeConfig)


class EvaluationConfig(BaseModel):
    """Simulated sessions of held-out patients with each arm, and their scores."""

    model_config = ConfigDict(extra="forbid")

    max_patients: int | None = Field(None, ge=1, description="held-out patients to simulate; none: all of them")
    seeds: int = Field(2, ge=1, description="sessions of each patient with each arm")
    sessions_in_flight: int = Field(16, ge=1)
    max_turns: int = Field(20, ge=2, description="turns of both speakers together")
    max_words: int = Field(5000, ge=10)
    therapist: Annotated[SamplingConfig, _over(THERAPIST)] = THERAPIST
    engine: EngineConfig = Field(default_factory=EngineConfig)
    patient: Annotated[SamplingConfig, _over(PATIENT)] = PATIENT
    patient_provider: ProviderConfig | None = Field(
        None, description="API that plays the patients; none serves the patient adapter on this machine"
    )
    patient_instructions: str = Field(PATIENT_INSTRUCTIONS, description="for an API patient; an adapter needs none")
    judging: JudgingConfig = Field(default_factory=JudgingConfig)
    perplexity_tokens: int = Field(10_000, ge=1, description="tokens of each held-out patient's sessions to measure")
