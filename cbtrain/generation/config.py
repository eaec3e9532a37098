"""What a user sets about generation (torch-free)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class EngineConfig(BaseModel):
    """Sizes of the key-value cache: ``slots`` conversations of at most ``context_tokens`` tokens each."""

    model_config = ConfigDict(extra="forbid")

    slots: int = Field(16, ge=1, description="conversations whose keys and values are kept at a time")
    context_tokens: int = Field(8192, ge=64, description="longest prompt plus answer")
    prefill_tokens: int = Field(8192, ge=64, description="new prompt tokens that one engine step may read")


class SamplingConfig(BaseModel):
    """How the next token is drawn."""

    model_config = ConfigDict(extra="forbid")

    temperature: float = Field(0.8, ge=0, le=10, description="0: always the likeliest token")
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0: all tokens")
    max_tokens: int = Field(200, ge=1, description="longest turn")
