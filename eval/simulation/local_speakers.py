"""Patients and therapists on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cbtrain.errors import UserError
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
from cbtrain.generation.request import BadRequest, Completion, ContextOverflow, RequestFailed
from cbtrain.providers.answers.refusals import leaves_role
from cbtrain.providers.structured import shaped
from cbtrain.text.thinking import without_thinking
from cbtrain.tokens.dialogue import Message as ChatMessage
from cbtrain.tokens.dialogue import dialogue
from cbtrain.transcripts.types import Role, Turn

if TYPE_CHECKING:
    from cbtrain.generation.local_model import LocalModel
PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


class LocalSpeaker:
    """Says its turns with a model in this process. ``ids`` are the tokens of its session's turns, by index: whoever
    records turns fills them in. If what was drawn is not what is said, its text and tokens are facts."""

    role: Role

    def __init__(
        self,
        model: LocalModel,
        sampling: SamplingConfig,
        system: str,
        *,
        adapter: str | None,
        voice: str | None = None,
        ids: Mapping[int, Sequence[int]],
        last: int | None = None,
    ) -> None:
        self.model, self.sampling, self.system = model, sampling, system
        self.adapter, self.voice, self.ids, self.last = adapter, voice, ids, last

    async def speak(self, turns: Sequence[Turn], seed: int) -> Spoken:
        done, facts = await self._drawn(
            dialogue(turns, self.role, self.system, self.ids, last=self.last), self.sampling, seed
        )
        if len(turns) < 2:  # the same in the whole session, and said to no API that would have kept it
            facts["system"] = self.system
        text, thinking = without_thinking(done.text)
        if thinking:
            facts["thinking_removed"] = thinking
        drawn = {"raw": done.text, "drawn": list(done.ids)}
        try:
            text, found = self.words(text, thinking)
        except SpeakerStopped as stopped:
            stopped.facts = facts | drawn
            raise
        unchanged = text.strip() == done.text.strip()
        facts |= {} if unchanged and text.strip() else drawn
        whole = unchanged and not isinstance(done.stopped_by, str)
        return Spoken(text, facts | found, tuple(done.ids) if whole else ())

    async def write(self, turns: Sequence[Turn], question: str, sampling: SamplingConfig, seed: int) -> Spoken:
        """Return the answer to ``question`` after all ``turns``: no turn of the session. Raises SpeakerStopped."""
        messages = with_question(dialogue(turns, self.role, self.system, self.ids), question)
        done, facts = await self._drawn(messages, sampling, seed)
        text, thinking = without_thinking(done.text)
        return Spoken(text, facts | ({"thinking_removed": thinking} if thinking else {}))

    async def _drawn(
        self, messages: Sequence[ChatMessage], sampling: SamplingConfig, seed: int
    ) -> tuple[Completion, dict[str, Any]]:
        """Return what the model has drawn, and facts on it. Raises SpeakerStopped."""
        try:
            done = await self.model.answer(messages, sampling, seed=seed, adapter=self.adapter, voice=self.voice)
        except ContextOverflow as error:
            raise SpeakerStopped("context_limit", str(error)) from None
        except (UserError, BadRequest, RequestFailed) as error:
            raise SpeakerStopped("internal_error", str(error)) from None
        facts: dict[str, Any] = {
            "finish_reason": done.finish_reason,
            "prompt_tokens": done.prompt_tokens,
            "cached_tokens": done.cached_tokens,
            "completion_tokens": len(done.ids),
            "seed": seed,
        }
        return done, facts

    async def ask(self, turns: Sequence[Turn], question: Question, seed: int) -> Answered:
        """Return the answer to ``question`` after all ``turns``, as :class:`Respondent` says. A grammar holds the model
        to the shape, so one that does not end in time is the only invalid one."""
        messages = with_question(dialogue(turns, self.role, self.system, self.ids), question.text)
        limit = self.sampling.max_tokens + question.tokens
        facts: dict[str, Any] = {"seed": seed, "max_tokens": limit}
        try:
            # A shortest turn is meant for speech, and penalties for words: both would forbid keys and brackets.
            unpenalised = SamplingConfig().model_dump(include=set(PENALTIES))
            sampling = self.sampling.model_copy(update={**unpenalised, "min_tokens": 0, "max_tokens": limit})
            request = await self.model.chat(messages, sampling, seed=seed, adapter=self.adapter, voice=self.voice)
            request = replace(request, schema=question.guide, stop=())  # the grammar ends it; a label may be quoted
            await self.model.compile_schema(request)
            done = await self.model.complete(request)
        except (UserError, BadRequest, RequestFailed) as error:
            return Answered("error", None, str(error), facts)
        facts |= {
            "finish_reason": done.finish_reason,
            "prompt_tokens": done.prompt_tokens,
            "cached_tokens": done.cached_tokens,
            "completion_tokens": len(done.ids),
        }
        value, problem = shaped(done.text, question.shape)
        if value is not None:
            return Answered("ok", value.model_dump(), "", facts)
        facts["raw"] = done.text
        if done.finish_reason == "length":
            return Answered("truncated", None, f"the answer was cut after {len(done.ids):,} tokens", facts)
        return Answered("invalid", None, problem, facts)

    def words(self, text: str, thinking: int) -> tuple[str, dict[str, Any]]:
        """Return what is said in ``text``, and facts of what was found in it. ``thinking`` characters are out of it."""
        raise NotImplementedError


class LocalTherapist(LocalSpeaker):
    """An arm: the base, or one of its adapters."""

    role = "therapist"

    def words(self, text: str, thinking: int) -> tuple[str, dict[str, Any]]:
        return text, in_a_therapists_words(text)


class LocalPatient(LocalSpeaker):
    """Plays ``part`` with an adapter that was trained on patients' turns, or with a general model (None)."""

    role = "patient"

    def __init__(
        self,
        model: LocalModel,
        part: PatientRole,
        sampling: SamplingConfig,
        *,
        adapter: str | None,
        ids: Mapping[int, Sequence[int]],
    ) -> None:
        # A patient that says nothing is no patient: the answer does not end before it has begun.
        sampling = sampling.model_copy(update={"min_tokens": max(sampling.min_tokens, 1)})
        super().__init__(model, sampling, part.system, adapter=adapter, ids=ids, last=part.last)
        self.part = part

    async def speak(self, turns: Sequence[Turn], seed: int) -> Spoken:
        if self.part.opening and not turns:
            return Spoken(self.part.opening, {"written": True})
        return await in_character(partial(super().speak, turns), turns, seed, self.part.names, self.part.drift)

    def words(self, text: str, thinking: int) -> tuple[str, dict[str, Any]]:
        if leaves_role(text):
            raise SpeakerStopped("content_filter", f"the patient's model answered with refusal{quoted(text)}")
        if thinking and not text.strip():
            raise SpeakerStopped("provider_error", f"the patient's model gave thinking, but no answer; {THINK_LESS}")
        text, found = self.part.words(text)
        if not text.strip() and found:
            raise SpeakerStopped("provider_error", nothing_said(found))
        return text, found
