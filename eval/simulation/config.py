"""Settings of the speakers of simulated sessions (torch-free)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cbtrain.errors import UserError
from cbtrain.generation.config import SamplingConfig
from cbtrain.providers.config import ProviderConfig
from cbtrain.settings import SettingsConflict
from cbtrain.transcripts.types import Phase

NARRATIVE, DEFAULT = "narrative", "default"
"""The simulator of a general model, if none is named; and the name under which a study that crosses simulators keeps
the sessions that it has held without naming any."""

SENT_TO_APIS = ("temperature", "top_p", "max_tokens")
"""Settings of :class:`SamplingConfig` that a request to an API carries."""

LONGEST_NAME = 60

WHOLE_COURSE = 20
"""Sessions of a whole course, as in the 2024 study."""

SUMMARY_PROMPT = (
    "The session is over. Write a summary of it for the record, for you and the patient to begin the next session "
    "with. Name the main topics, the techniques that were used and how the patient took them, what helped, insights, "
    "anything about risk, and the homework that was agreed on, and carry over from the summary before what is still "
    "needed. Plain sentences, at most 250 words, nothing that was not said."
)
"""What the writer of a summary is asked after a session of a course."""

STUDY_PROMPT, TOKENS_PROMPT, TRAINED_PROMPT, NO_PROMPT = "study", "tokens", "trained", "none"
PROMPT_WORDS = (STUDY_PROMPT, TOKENS_PROMPT, TRAINED_PROMPT, NO_PROMPT)
"""System prompts that are no text of their own: the study's (``evaluation.prompt``), that of training (``tokens``), the
one saved with an adapter, nothing."""


class LocalModelConfig(BaseModel):
    """Weights on this machine."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, description="model folder or hub id")
    adapter: str | None = Field(None, min_length=1, description="folder of an adapter of that model")


class TherapistConfig(BaseModel):
    """A therapist under test, an arm of the study: weights on this machine, or a model behind an API."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, min_length=1, description="model folder or hub id")
    adapter: str | None = Field(
        None, min_length=1, description="folder of an adapter of that model, or a tuned model of the same base"
    )
    provider: ProviderConfig | None = Field(None, description="API that is the therapist, instead of a model here")
    base: str = Field("", description="the base model's name in tables; arms of one base are compared with each other")
    variant: str = Field("", description="untuned, tuned, placebo or a word of your own; contrasts follow from it")
    reference: bool | str = Field(
        False, description="true: compare every other arm with this one, at most one; or the arm to compare it with"
    )
    prompt: str = Field(
        STUDY_PROMPT,
        min_length=1,
        description="system prompt: study (evaluation.prompt), none, cbt, session-structure, few-shot, one-line, "
        "trained (saved with the adapter), or a text file",
    )
    sampling: SamplingConfig | None = Field(None, description="null: evaluation.therapist")

    def check(self) -> None:
        """Raise UserError if the settings do not name one therapist. No validator: whoever plans a study tells of all
        its therapists at once."""
        if self.model is None and self.provider is None:
            hint = "Name model (a folder or a hub id) or provider (an API)."
            raise UserError("a therapist without a model", hint=hint)
        if self.model is not None and self.provider is not None:
            raise UserError("model and provider are both given", hint="Leave one out.")
        if self.provider is not None and self.adapter is not None:
            raise UserError("an API has no adapter here", hint="Name model instead of provider.")


class SimulatorConfig(BaseModel):
    """A way of playing the patients. Several are crossed: every patient is played in each of them."""

    model_config = ConfigDict(extra="forbid")

    method: str = Field(NARRATIVE, min_length=1, description="narrative, cognitive-model, or a YAML file")
    provider: ProviderConfig | None = Field(
        None, description="API that plays in this way; null: whoever plays the patients of the study"
    )
    sampling: SamplingConfig | None = Field(None, description="null: evaluation.patient")


class SummaryConfig(BaseModel):
    """The summary between two sessions of a whole course, the only memory from one to the next."""

    model_config = ConfigDict(extra="forbid")

    provider: ProviderConfig | None = Field(None, description="API that writes it; null: the therapist itself")
    prompt: str = Field(SUMMARY_PROMPT, min_length=1, description="what the writer is asked, after the whole session")
    max_tokens: int = Field(500, ge=1)
    temperature: float = Field(0.3, ge=0, le=2)
    min_words: int = Field(20, ge=1, description="a shorter one is asked for again")
    attempts: int = Field(3, ge=1, description="how often it is asked for; then the course ends there")

    @model_validator(mode="after")
    def _can_be_long_enough(self) -> SummaryConfig:
        if self.min_words > self.max_tokens:
            problem = f"min_words is {self.min_words}, and max_tokens {self.max_tokens} hold fewer words"
            raise SettingsConflict(problem, "min_words", "max_tokens")
        return self


class CourseConfig(BaseModel):
    """Which sessions of a course of therapy are held, and how the summary of those before is told."""

    model_config = ConfigDict(extra="forbid")

    sessions: Literal["auto", "first", "phases", "whole"] = Field(
        "auto",
        description="first: a first meeting; phases: one session a phase, with a fixed summary of those before, the "
        "same in every arm; whole: all sessions one after the other, each with the summary of the last; auto: phases "
        "if every patient has such summaries, else first",
    )
    phases: list[Phase] = Field(
        ["assessment", "initial", "middle", "termination"], min_length=1, description="with sessions: phases"
    )
    length: int = Field(WHOLE_COURSE, ge=2, le=100, description="sessions of a whole course")
    told: Literal["prompts", "opening"] = Field(
        "prompts",
        description="where the summary stands: in the prompts of both, or in the patient's first words, which are then "
        "written and not generated, as in the 2024 study",
    )
    summary: SummaryConfig = Field(default_factory=SummaryConfig)


def refuse_unsent(sampling: SamplingConfig, key: str, who: str) -> None:
    """Raise SettingsConflict on a setting of ``sampling``, which is ``key``, that requests to the API of ``who`` would
    leave out."""
    for name, field in SamplingConfig.model_fields.items():
        value = getattr(sampling, name)
        if name not in SENT_TO_APIS and value != field.default:
            sent = ", ".join(SENT_TO_APIS)
            problem = f"{key}.{name} is {value:g}, but {who} is sent {sent} only"
            raise SettingsConflict(f"{problem}; leave it out", f"{key}.{name}")
