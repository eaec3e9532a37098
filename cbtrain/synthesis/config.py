"""Settings of writing new transcripts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.providers.config import ProviderConfig, ProvidersConfig


class SynthesisConfig(BaseModel):
    """A course of ``sessions`` for every profile, each session asked for in parts."""

    model_config = ConfigDict(extra="forbid")

    provider: ProviderConfig
    providers: ProvidersConfig = Field(default_factory=ProvidersConfig)
    sessions: int = Field(20, ge=1, le=20, description="sessions of each course")
    max_tokens: int = Field(4096, ge=1, description="longest part")
    temperature: float = Field(0.4, ge=0, le=2)
    attempts: int = Field(5, ge=1, description="how often a part is asked for if it fails its checks")
    courses_in_flight: int = Field(8, ge=1)
    seed: int = 0
