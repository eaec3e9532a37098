"""What a user sets about one API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ProviderConfig(BaseModel):
    """An account at an API that speaks the OpenAI chat protocol (OpenAI, OpenRouter, vLLM, SGLang, our server, …)."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["openai"] = "openai"
    base_url: str = Field(description="up to and including the version, e.g. https://api.openai.com/v1")
    model: str
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="NAME of the environment variable that holds the key, never the key itself",
    )
    connect_timeout_s: float = Field(10, gt=0)
    read_timeout_s: float = Field(120, gt=0, description="longest silence of an open connection")
    attempt_timeout_s: float = Field(180, gt=0)
    overall_deadline_s: float = Field(600, gt=0, description="all attempts and waits together")
    max_retries: int = Field(5, ge=0)
    backoff_s: float = Field(1.0, gt=0, description="upper bound of the first wait; it doubles with each retry")
    max_in_flight: int = Field(32, ge=1)
    extra_body: dict[str, Any] = Field(default_factory=dict, description="provider-specific request fields")
