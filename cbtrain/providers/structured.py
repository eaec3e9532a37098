"""Answers that must match a schema: validate them, and ask again with the error if one does not. Nothing is guessed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from cbtrain.providers.types import ChatRequest, ChatResponse, Message
from cbtrain.text.json_objects import objects_in

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
            return Structured("truncated", None, cut_short(request, response), tuple(responses))
        value, problem = shaped(response.text, shape) if response.text.strip() else (None, cut_short(request, response))
        if value is not None:
            return Structured("ok", value, "", tuple(responses))
        again = f"This is not a valid answer ({problem}). Answer again with the whole JSON object."
        *before, last = request.messages
        more = [last, Message("assistant", response.text), Message("user", again)]
        if not response.text.strip():  # an empty turn is an error to some APIs
            more = [replace(last, content=f"{last.content}\n\n{again}")]
        request = replace(request, messages=(*before, *more))
    return Structured("invalid", None, problem, tuple(responses))


def shaped(text: str, shape: type[Shape]) -> tuple[Shape | None, str]:
    """Return the object in ``text`` that is a valid ``shape``, and an empty text; or None and what is wrong, if there
    is no such object or several different ones."""
    valid: dict[str, Shape] = {}
    objects = [part for part, _ in objects_in(text)]
    problems = {}
    for part in objects:
        try:
            value = shape.model_validate_json(part)
            valid[value.model_dump_json()] = value
        except ValidationError as error:
            first = error.errors()[0]
            problems[part] = f"{'.'.join(map(str, first['loc'])) or 'answer'}: {first['msg']}"
    if len(valid) == 1:
        return next(iter(valid.values())), ""
    if valid:
        return None, f"answer: {len(valid)} different objects, where one is to stand"
    # Of several, the longest is most likely meant.
    if problems:
        return None, problems[max(problems, key=len)]
    broken = "{" in text
    return None, f"answer: {'its JSON object is broken, or has a key twice' if broken else 'no JSON object in it'}"


def cut_short(request: ChatRequest, response: ChatResponse) -> str:
    """Return that an answer was cut by the limit of tokens, or has no word but thinking, and where the tokens went."""
    used = response.usage.completion_tokens
    tokens = f"{used:,} of {request.max_tokens:,} tokens" if used else f"at most {request.max_tokens:,} tokens"
    if response.finish_reason == "length" and response.text.strip():
        what = f"the answer was cut at max_tokens ({tokens}"
    else:
        what = f"thinking, but no answer ({tokens}" if thought(response) else f"an empty answer ({tokens}"
    thinking = response.usage.reasoning_tokens
    return f"{what}, {thinking:,} of them spent on thinking)" if thinking else f"{what})"


def thought(response: ChatResponse) -> bool:
    """Return whether an answer spent tokens on thinking, as far as can be told: one that reached the limit without a
    word spent them on something that is not shown."""
    hidden = not response.text.strip() and response.finish_reason == "length"
    return bool(response.thinking or response.usage.reasoning_tokens or hidden)
