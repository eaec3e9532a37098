"""Settings of raters (torch-free)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.overrides import merge


def over(default: BaseModel) -> BeforeValidator:
    """Return a validator that merges given settings over ``default``; the settings of another API replace it."""
    return BeforeValidator(lambda given: merge(default.model_dump(), given) if isinstance(given, dict) else given)


JUDGE = ProviderConfig(base_url="https://api.openai.com/v1", model="gpt-4.1-mini", api_key_env="CBTRAIN_JUDGE_API_KEY")


class JudgeConfig(BaseModel):
    """How the judge is asked."""

    model_config = ConfigDict(extra="forbid")

    repeats: int = Field(1, ge=1, description="independent ratings of each session")
    per_domain: bool = Field(False, description="true: one call for each domain; false: one call for all domains")
    temperature: float = Field(0.3, ge=0)
    max_tokens: int = Field(4096, ge=1)
    max_reasks: int = Field(2, ge=0, description="how often to ask again, with what is wrong, after an invalid answer")


class JudgingConfig(BaseModel):
    """Which rater scores the sessions.

    ``auto`` takes the LLM judge where the environment variable that ``provider.api_key_env`` names is set, and the
    embedded cue rater (a smoke test, no clinical judgement) where it is not.
    """

    model_config = ConfigDict(extra="forbid")

    rater: Literal["auto", "cue", "llm"] = "auto"
    rubric: str = Field("cbt_fidelity", description="name of a shipped rubric or path of a YAML file")
    provider: Annotated[ProviderConfig, over(JUDGE)] = JUDGE
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
