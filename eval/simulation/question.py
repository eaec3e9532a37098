"""A question to a speaker after a session, whose answer has to be one JSON object of a shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from cbtrain.tokens.dialogue import Message
from cbtrain.transcripts.types import Turn

AnswerStatus = Literal["ok", "invalid", "refused", "truncated", "error"]
"""``invalid``, ``refused`` and ``truncated`` are answers that are no use; ``error``: there was none."""


@dataclass(frozen=True, slots=True)
class Question:
    """``text`` is the last message that the speaker reads. A valid answer is of ``shape``; ``schema`` asks an API for
    one, ``guide`` holds a model on this machine to one. ``tokens``: room for the longest."""

    text: str
    shape: type[BaseModel]
    schema: dict[str, Any]
    guide: dict[str, Any]
    tokens: int


@dataclass(frozen=True, slots=True)
class Answered:
    """``values`` by the keys of the shape, None unless ``status`` is ``ok``; ``problem`` says why there are none.
    ``facts`` on the generation are as those of a turn."""

    status: AnswerStatus
    values: dict[str, Any] | None
    problem: str
    facts: dict[str, Any]


class Respondent(Protocol):
    """A speaker that can be asked after a session: it reads its system prompt, all turns and the question. Raises
    nothing that its model or API has done: that is a status."""

    async def ask(self, turns: Sequence[Turn], question: Question, seed: int) -> Answered: ...


def with_question(messages: Sequence[Message], question: str) -> list[Message]:
    """Return ``messages`` with ``question`` as the user's last words. Roles alternate, as chat templates want."""
    *before, last = messages
    asked = Message("user", question)
    return [*before, last.followed_by(asked)] if last.role == "user" else [*messages, asked]
