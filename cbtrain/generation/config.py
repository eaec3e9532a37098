"""What a user sets about generation (torch-free)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cbtrain.settings import SettingsConflict


class EngineConfig(BaseModel):
    """Sizes of the key-value cache: ``slots`` conversations of at most ``context_tokens`` tokens each."""

    model_config = ConfigDict(extra="forbid")

    slots: int | None = Field(
        None, ge=1, description="conversations whose keys and values are kept at a time; null: as memory_gb allows"
    )
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="memory for keys and values; null: most of what a GPU has free, a quarter of the RAM",
    )
    context_tokens: int = Field(8192, ge=64, description="longest prompt plus answer")
    prefill_tokens: int = Field(2048, ge=16, description="new prompt tokens that one engine step may read")


LEAST_TEMPERATURE = 1e-3
"""Least temperature above 0. A logit that is larger by 0.1 then wins all but once in e^100 draws."""


class SamplingConfig(BaseModel):
    """How the next token is drawn: bias, grammar masks and penalties first, then temperature, top-k, top-p, min-p."""

    model_config = ConfigDict(extra="forbid")

    temperature: float = Field(
        0.8, ge=0, le=10, allow_inf_nan=False, description="0: always the likeliest token; else at least 0.001"
    )
    top_p: float = Field(
        0.95,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="keep the likeliest tokens that have this probability; 1: all",
    )
    top_k: int = Field(0, ge=0, description="keep that many of the likeliest tokens; 0: all")
    min_p: float = Field(
        0.0, ge=0, le=1, allow_inf_nan=False, description="least probability, as a share of the likeliest's; 0: off"
    )
    repetition_penalty: float = Field(
        1.0,
        ge=0.01,
        le=100,
        allow_inf_nan=False,
        description="divides positive logits of tokens in prompt and answer, multiplies negative ones; 1: off",
    )
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, allow_inf_nan=False, description="taken from the logit of each token in the answer; 0: off"
    )
    frequency_penalty: float = Field(
        0.0,
        ge=-2,
        le=2,
        allow_inf_nan=False,
        description="taken from the logit of a token for each time that it is in the answer; 0: off",
    )
    min_tokens: int = Field(0, ge=0, description="shortest turn")
    max_tokens: int = Field(200, ge=1, description="longest turn")

    @field_validator("temperature")
    @classmethod
    def _temperature_is_not_tiny(cls, temperature: float) -> float:
        if 0 < temperature < LEAST_TEMPERATURE:
            raise ValueError(f"must be 0, for the likeliest token, or at least {LEAST_TEMPERATURE:g}")
        return temperature

    @model_validator(mode="after")
    def _lengths_fit(self) -> SamplingConfig:
        if self.min_tokens > self.max_tokens:
            problem = (
                f"min_tokens is {self.min_tokens}, but max_tokens is {self.max_tokens}; lower or raise one of them"
            )
            raise SettingsConflict(problem, "min_tokens", "max_tokens")
        return self
