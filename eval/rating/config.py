"""Settings of raters (torch-free)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.overrides import merge
from cbtrain.settings import SettingsConflict


def over(default: BaseModel) -> BeforeValidator:
    """Return a validator that merges given settings over ``default``; the settings of another API replace it."""
    return BeforeValidator(lambda given: merge(default.model_dump(), given) if isinstance(given, dict) else given)


JUDGE = ProviderConfig(base_url="https://api.openai.com/v1", model="gpt-4.1-mini", api_key_env="CBTRAIN_JUDGE_API_KEY")

CUE, LLM = "cue", "llm"
"""Kinds of raters that need no file."""

DEFAULT_PROMPT = "default"


class JudgeConfig(BaseModel):
    """How the judge is asked."""

    model_config = ConfigDict(extra="forbid")

    repeats: int = Field(1, ge=1, description="independent ratings of each session")
    per_domain: bool = Field(False, description="true: one call for each domain; false: one call for all domains")
    prompt: str = Field(
        DEFAULT_PROMPT, min_length=1, description="what the judge is told: default, or a YAML file with a template"
    )
    temperature: float = Field(0.3, ge=0)
    max_tokens: int = Field(4096, ge=1)
    max_reasks: int = Field(2, ge=0, description="how often to ask again, with what is wrong, after an invalid answer")


class JudgingConfig(BaseModel):
    """Which rater scores the sessions, and what judges with a name have if they do not say otherwise.

    ``auto`` takes the LLM judge where the environment variable that ``provider.api_key_env`` names is set, and the
    embedded cue rater (a smoke test, no clinical judgement) where it is not.
    """

    model_config = ConfigDict(extra="forbid")

    rater: Literal["auto", "cue", "llm"] = Field(
        "auto", description="llm, cue or auto, if no judge is named (evaluation.judges)"
    )
    rubric: str = Field("cbt_fidelity", description="name of a shipped rubric or path of a YAML file")
    provider: Annotated[ProviderConfig, over(JUDGE)] = JUDGE
    judge: JudgeConfig = Field(default_factory=JudgeConfig)


class NamedJudge(BaseModel):
    """One of several judges. What is null is as in ``evaluation.judging``."""

    model_config = ConfigDict(extra="forbid")

    rater: str = Field(LLM, min_length=1, description="llm, cue, or a file that `cbtrain judge train` wrote")
    rubric: str | None = Field(None, min_length=1, description="the instrument: a shipped rubric or a YAML file")
    provider: ProviderConfig | None = None
    beside: bool = Field(False, description="true: for comparison only, its scores do not count in the result")
    repeats: int | None = Field(None, ge=1)
    per_domain: bool | None = None
    prompt: str | None = Field(None, min_length=1)
    temperature: float | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=1)
    max_reasks: int | None = Field(None, ge=0)

    def asked(self, judging: JudgingConfig) -> JudgeConfig:
        """Return how this judge is asked."""
        own: dict[str, Any] = {name: getattr(self, name) for name in JudgeConfig.model_fields}
        return judging.judge.model_copy(update={name: value for name, value in own.items() if value is not None})


def judges_by_name(entries: list[Any]) -> dict[str, Any]:
    """Return judges that are given as a list, each with its ``name``, by name. Raises SettingsConflict on one without a
    name, and on two with the same."""
    judges: dict[str, Any] = {}
    for place, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            problem = f"entry {place} of the list has no name (write `name: …`, or NAME: with its settings below)"
            raise SettingsConflict(problem, "judges")
        if name in judges:
            raise SettingsConflict(f"two judges are called {name!r}", "judges")
        judges[name] = {key: value for key, value in entry.items() if key != "name"}
    return judges
