"""Answers that must match a schema: validate them, and ask again with the error if one does not. Nothing is guessed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from cbtrain.providers.types import ChatRequest, ChatResponse, Message, json_part

Shape = TypeVar("Shape", bound=BaseModel)

REASKS = 2


@dataclass(frozen=True, slots=True)
class Structured(Generic[Shape]):
    """``value`` is set if ``status`` is ``ok``; ``problem`` describes the last answer otherwise. ``responses`` are all
    answers, in order."""

    status: Literal["ok", "invalid", "refused", "truncated"]
    value: Shape | None
    problem: str
    responses: tuple[ChatResponse, ...]


async def ask(
    chat: Callable[[ChatRequest], Awaitable[ChatResponse]],
    request: ChatRequest,
    shape: type[Shape],
    reasks: int = REASKS,
) -> Structured[Shape]:
    """Return the answer to ``request`` as a ``shape``. A request without a schema is sent with that of ``shape``.

    After an invalid answer, ask again with its first error, at most ``reasks`` times; not after a refused or truncated
    one, which would come again. Raises the errors of ``chat``.
    """
    if request.json_schema is None:
        request = replace(request, json_schema=shape.model_json_schema())
    responses: list[ChatResponse] = []
    problem = ""
    for _ in range(reasks + 1):
        response = await chat(request)
        responses.append(response)
        if response.finish_reason in ("refusal", "content_filter"):
            return Structured("refused", None, f"answered with {response.finish_reason}", tuple(responses))
        if response.finish_reason == "length":
            return Structured("truncated", None, "the answer was cut at max_tokens", tuple(responses))
        try:
            value = shape.model_validate_json(json_part(response.text))
            return Structured("ok", value, "", tuple(responses))
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc'])) or 'answer'}: {first['msg']}"
        again = f"This is not a valid answer ({problem}). Answer again with the whole JSON object."
        *before, last = request.messages
        more = [last, Message("assistant", response.text), Message("user", again)]
        if not response.text.strip():  # an empty turn is an error to some APIs
            more = [replace(last, content=f"{last.content}\n\n{again}")]
        request = replace(request, messages=(*before, *more))
    return Structured("invalid", None, problem, tuple(responses))
