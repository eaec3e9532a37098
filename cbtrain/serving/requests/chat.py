"""``POST /v1/chat/completions``: messages, and what only chats have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cbtrain.serving.errors import Refused
from cbtrain.serving.requests.fields import NEUTRAL_IN_CHATS, NEUTRAL_IN_MESSAGES, served_fields
from cbtrain.serving.requests.sampled import MOST_ALTERNATIVES, SampledBody, whole_characters
from cbtrain.tokens.dialogue import Message


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: Any) -> Any:
        """Return the text of a message's content, which OpenAI's clients may send in parts: a line break between
        two."""
        if not isinstance(content, list):
            return content
        if not content:
            raise ValueError("must have at least one part")
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise ValueError("each part must be a text: {'type': 'text', 'text': …}")
            if any(value is not None for name, value in part.items() if name not in ("type", "text")):
                raise ValueError("a part has a key besides type and text")
        return "\n".join(part["text"] for part in content)

    @field_validator("content")
    @classmethod
    def _whole(cls, content: str) -> str:
        return whole_characters(content)


class ChatBody(SampledBody):
    NEUTRAL_TOO: ClassVar[Mapping[str, tuple[Any, ...]]] = NEUTRAL_IN_CHATS

    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> ChatBody:
        messages = fields.get("messages")
        if isinstance(messages, list):
            names = ChatMessage.model_fields
            checked = [
                served_fields(message, names, NEUTRAL_IN_MESSAGES, f"messages.{index}.")
                if isinstance(message, dict)
                else message
                for index, message in enumerate(messages)
            ]
            fields = {**fields, "messages": checked}
        body: ChatBody = super().read(fields)
        if body.top_logprobs is not None and not body.logprobs:
            raise Refused(400, "top_logprobs: only with logprobs=true", param="top_logprobs")
        given = {body.max_tokens, body.max_completion_tokens} - {None}
        if len(given) > 1:
            raise Refused(400, "max_tokens and max_completion_tokens differ: send one of them", param="max_tokens")
        return body

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def chat(self, system: str | None) -> list[Message]:
        """Return the messages; a chat without a system message gets ``system``, if that is a text."""
        messages = [Message("system" if m.role == "developer" else m.role, m.content) for m in self.messages]
        if system and all(message.role != "system" for message in messages):
            messages.insert(0, Message("system", system))
        return messages
