"""Settings of the speakers of simulated sessions (torch-free)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError
from cbtrain.generation.config import SamplingConfig
from cbtrain.providers.config import ProviderConfig
from cbtrain.settings import SettingsConflict

SENT_TO_APIS = ("temperature", "top_p", "max_tokens")
"""Settings of :class:`SamplingConfig` that a request to an API carries."""

LONGEST_NAME = 60

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


def refuse_unsent(sampling: SamplingConfig, key: str, who: str) -> None:
    """Raise SettingsConflict on a setting of ``sampling``, which is ``key``, that requests to the API of ``who`` would
    leave out."""
    for name, field in SamplingConfig.model_fields.items():
        value = getattr(sampling, name)
        if name not in SENT_TO_APIS and value != field.default:
            sent = ", ".join(SENT_TO_APIS)
            problem = f"{key}.{name} is {value:g}, but {who} is sent {sent} only"
            raise SettingsConflict(f"{problem}; leave it out", f"{key}.{name}")
