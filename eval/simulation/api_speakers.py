"""Patients and therapists behind an API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from cbtrain.eval.simulation.dialogue import SpeakerStopped, Spoken
from cbtrain.eval.simulation.in_character import in_character
from cbtrain.eval.simulation.parts import (
    THINK_LESS,
    PatientRole,
    in_a_therapists_words,
    nothing_said,
    quoted,
)
from cbtrain.eval.simulation.question import Answered, Question, with_question
from cbtrain.generation.config import SamplingConfig
from cbtrain.providers.answers.refusals import leaves_role
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.provider import Provider
from cbtrain.providers.structured import ask, cut_short, thought
from cbtrain.providers.types import ChatRequest, ChatResponse, Message
from cbtrain.tokens.dialogue import Message as ChatMessage
from cbtrain.tokens.dialogue import dialogue
from cbtrain.transcripts.types import Ending, Role, Turn


class ApiSpeaker:
    """Says its turns through ``provider``, which is sent ``system`` and the ``last`` turns (None: all)."""

    role: Role

    def __init__(self, provider: Provider, sampling: SamplingConfig, system: str, *, last: int | None = None) -> None:
        self.provider, self.sampling, self.system, self.last = provider, sampling, system, last

    async def speak(self, turns: Sequence[Turn], seed: int) -> Spoken:
        request = api_request(
            self._messages(dialogue(turns, self.role, self.system, last=self.last)), self.sampling, seed
        )
        response, facts = await self._answered(request, seed)
        try:
            text, found = self.words(request, response)
        except SpeakerStopped as stopped:
            stopped.facts = facts
            raise
        return Spoken(text, facts | found)

    async def write(self, turns: Sequence[Turn], question: str, sampling: SamplingConfig, seed: int) -> Spoken:
        """Return the answer to ``question`` after all ``turns``: no turn of the session. Raises SpeakerStopped."""
        messages = with_question(dialogue(turns, self.role, self.system), question)
        response, facts = await self._answered(api_request(self._messages(messages), sampling, seed), seed)
        if response.finish_reason == "content_filter":
            raise SpeakerStopped("content_filter", f"the API filtered the answer{quoted(response.text)}", facts)
        return Spoken(response.text, facts)

    @staticmethod
    def _messages(seen: Sequence[ChatMessage]) -> tuple[Message, ...]:
        return tuple(Message(message.role, message.content) for message in seen)  # type: ignore[arg-type]

    async def _answered(self, request: ChatRequest, seed: int) -> tuple[ChatResponse, dict[str, Any]]:
        """Return the API's response, and facts on it. Raises SpeakerStopped."""
        try:
            response = await self.provider.chat(request, sample=seed)
        except ProviderError as error:
            asked = {"seed": seed, "requests": [error.request]} if error.request else {"seed": seed}
            if error.kind == "context_overflow":
                raise SpeakerStopped("context_limit", str(error), asked) from None
            endings: dict[str, Ending] = {"content_filter": "content_filter", "budget": "budget"}
            raise SpeakerStopped(endings.get(error.kind, "provider_error"), str(error), asked) from None
        facts: dict[str, Any] = {
            "finish_reason": response.finish_reason,
            **{name: count for name, count in asdict(response.usage).items() if count},
            "model": response.model,
            "latency_s": round(response.latency_s, 3),
            "attempts": response.attempts,
            "seed": seed,
            "requests": [response.request],
        }
        if response.thinking:
            facts["thinking_removed"] = response.thinking
        return response, facts

    async def ask(self, turns: Sequence[Turn], question: Question, seed: int) -> Answered:
        """Return the answer to ``question`` after all ``turns``, as :class:`Respondent` says: asked again, at most
        REASKS times, after an invalid one. Room for thinking is that of a turn."""
        seen = with_question(dialogue(turns, self.role, self.system), question.text)
        messages = tuple(Message(message.role, message.content) for message in seen)  # type: ignore[arg-type]
        request = api_request(messages, self.sampling, seed)
        limit = request.max_tokens + question.tokens
        request = replace(request, max_tokens=limit, json_schema=question.schema)
        facts: dict[str, Any] = {"seed": seed, "max_tokens": limit, "requests": []}

        async def chat(request: ChatRequest) -> ChatResponse:
            response = await self.provider.chat(request, sample=seed)
            facts["requests"].append(response.request)
            return response

        try:
            answer = await ask(chat, request, question.shape)
        except ProviderError as error:
            facts["requests"] += [error.request] if error.request else []
            return Answered("refused" if error.kind == "content_filter" else "error", None, str(error), facts)
        facts |= _facts_of(answer.responses)
        values = answer.value.model_dump() if answer.value else None
        return Answered(answer.status, values, answer.problem, facts)

    def words(self, request: ChatRequest, response: ChatResponse) -> tuple[str, dict[str, Any]]:
        """Return what is said in ``response``, and facts of what was found in it. Raises SpeakerStopped if the answer
        is no turn of this speaker."""
        raise NotImplementedError


def _facts_of(responses: Sequence[ChatResponse]) -> dict[str, Any]:
    """Return the facts of the last of ``responses``, with the tokens of all."""
    tokens: Counter[str] = Counter()
    for response in responses:
        tokens.update(asdict(response.usage))
    last = responses[-1]
    facts: dict[str, Any] = {
        "finish_reason": last.finish_reason,
        **{name: count for name, count in tokens.items() if count},
        "model": last.model,
        "latency_s": round(last.latency_s, 3),
        "attempts": last.attempts,
    }
    return facts | ({"asked": len(responses)} if len(responses) > 1 else {})


def api_request(messages: Sequence[Message], sampling: SamplingConfig, seed: int) -> ChatRequest:
    """Return the request for a speaker's next turn."""
    return ChatRequest(
        tuple(messages),
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
    )


class ApiTherapist(ApiSpeaker):
    """An arm: a model behind an API."""

    role = "therapist"

    def words(self, request: ChatRequest, response: ChatResponse) -> tuple[str, dict[str, Any]]:
        # A refusal in words is what this therapist says; an answer that the API withheld is none of its own.
        if response.finish_reason == "content_filter":
            what = f"the therapist's API filtered its answer{quoted(response.text)}"
            raise SpeakerStopped("content_filter", what)
        return response.text, in_a_therapists_words(response.text)


class ApiPatient(ApiSpeaker):
    """Plays ``part`` through ``provider``."""

    role = "patient"

    def __init__(self, provider: Provider, part: PatientRole, sampling: SamplingConfig) -> None:
        super().__init__(provider, sampling, part.system, last=part.last)
        self.part = part

    async def speak(self, turns: Sequence[Turn], seed: int) -> Spoken:
        if self.part.opening and not turns:
            return Spoken(self.part.opening, {"written": True})
        return await in_character(partial(super().speak, turns), turns, seed, self.part.names, self.part.drift)

    def words(self, request: ChatRequest, response: ChatResponse) -> tuple[str, dict[str, Any]]:
        if response.finish_reason in ("content_filter", "refusal") or leaves_role(response.text):
            what = "content_filter" if response.finish_reason == "content_filter" else "refusal"
            raise SpeakerStopped("content_filter", f"the patient's model answered with {what}{quoted(response.text)}")
        if not response.text.strip():
            hint = f"; {THINK_LESS}" if thought(response) else ""
            raise SpeakerStopped("provider_error", f"the patient's model gave {cut_short(request, response)}{hint}")
        text, found = self.part.words(response.text)
        if not text.strip():
            raise SpeakerStopped("provider_error", nothing_said(found))
        return text, found
