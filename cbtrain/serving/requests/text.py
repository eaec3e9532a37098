"""``POST /v1/completions``: texts or token ids that the model continues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from cbtrain.serving.requests.fields import NEUTRAL_IN_TEXTS
from cbtrain.serving.requests.sampled import MOST_ALTERNATIVES, SampledBody, whole_characters

MOST_PROMPTS = 128
DEFAULT_TOKENS = 16
"""Longest continuation unless ``max_tokens`` says otherwise, as in the OpenAI API."""

Ids = Annotated[list[int], Field(min_length=1)]


class TextBody(SampledBody):
    NEUTRAL_TOO: ClassVar[Mapping[str, tuple[Any, ...]]] = NEUTRAL_IN_TEXTS

    prompt: str | list[str] | list[int] | list[Ids]
    logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)

    @field_validator("prompt", mode="before")
    @classmethod
    def _is_a_prompt(cls, prompt: Any) -> Any:
        """Refuse in one line what pydantic would refuse once for each kind of prompt."""
        items = prompt if isinstance(prompt, list) else [prompt]
        if not items:
            raise ValueError("must have at least one text or token")
        kinds = {type(item) for item in items}
        if kinds == {int} and items is prompt:
            return prompt
        several = kinds == {str} or (kinds == {list} and all(items) and {type(t) for i in items for t in i} == {int})
        if not several:
            raise ValueError("must be a text, a list of texts, a list of token ids, or a list of such lists")
        if len(items) > MOST_PROMPTS:
            raise ValueError(f"at most {MOST_PROMPTS} prompts")
        for text in items if kinds == {str} else ():
            whole_characters(text)
        return prompt

    @property
    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens or DEFAULT_TOKENS

    @property
    def wanted_logprobs(self) -> int | None:
        return self.logprobs
