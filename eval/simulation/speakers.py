"""The speakers of a simulated session: patient and therapist, each behind an API or on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cbtrain.errors import UserError
from cbtrain.eval.simulation.dialogue import SpeakerStopped, Spoken
from cbtrain.eval.simulation.in_character import DriftPolicy, in_character
from cbtrain.eval.simulation.question import Answered, Question, with_question
from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.request import BadRequest, Completion, ContextOverflow, RequestFailed
from cbtrain.providers.answers.refusals import leaves_role
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.provider import Provider
from cbtrain.providers.structured import ask, cut_short, shaped, thought
from cbtrain.providers.types import ChatRequest, ChatResponse, Message
from cbtrain.text.thinking import without_thinking
from cbtrain.tokens.dialogue import Message as ChatMessage
from cbtrain.tokens.dialogue import dialogue, patient_system
from cbtrain.transcripts.labels import inner_labels, names_of
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Ending, Role, Turn

if TYPE_CHECKING:
    from cbtrain.generation.local_model import LocalModel

SHOWN = 120
"""Characters of a refusal that its session's error shows."""

PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")

SPECIALS_ONLY = "said nothing but labels and special tokens"
THINK_LESS = (
    "raise evaluation.patient.max_tokens, or have the model think less (evaluation.patient_provider.extra_body), and "
    "evaluate again"
)


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
            raise SpeakerStopped("content_filter", f"the API filtered the answer{_quoted(response.text)}", facts)
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
            what = f"the therapist's API filtered its answer{_quoted(response.text)}"
            raise SpeakerStopped("content_filter", what)
        return response.text, _in_a_therapists_words(response.text)


@dataclass(frozen=True, slots=True)
class PatientRole:
    """Whom a patient's model plays. ``instructions`` come with the full ``profile`` for a general model; an adapter
    trained here gets, with none, exactly the prompt of its training; ``prompt`` stands for both, if it is given. The
    model sees the ``last`` turns (None: all). ``forbidden`` are special tokens of the therapist, which in a patient's
    mouth would end or open turns: they are taken out and counted. So are thinking, the patient's own label, and all
    that follows the therapist's label. ``drift``: what is done about turns that fall out of the part. ``opening`` are
    the first words, if they are written and not asked for."""

    profile: Profile | None = None
    instructions: str | None = None
    forbidden: Sequence[str] = ()
    last: int | None = None
    prompt: str | None = None
    drift: DriftPolicy = "ignore"
    opening: str = ""

    @property
    def system(self) -> str:
        """Return the system prompt."""
        if self.prompt is not None:
            return self.prompt
        brief, profile = patient_system(self.profile), self.profile.text if self.profile else ""
        return "\n\n".join(filter(None, [brief, profile, self.instructions])) if self.instructions else brief

    @property
    def names(self) -> dict[str, Role]:
        """Return the patient's own labels."""
        return names_of(self.profile, ())

    def words(self, text: str) -> tuple[str, dict[str, int]]:
        """Return :func:`patient_words` of ``text``."""
        return patient_words(text, self.names, self.forbidden)


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
            raise SpeakerStopped("content_filter", f"the patient's model answered with {what}{_quoted(response.text)}")
        if not response.text.strip():
            hint = f"; {THINK_LESS}" if thought(response) else ""
            raise SpeakerStopped("provider_error", f"the patient's model gave {cut_short(request, response)}{hint}")
        text, found = self.part.words(response.text)
        if not text.strip():
            raise SpeakerStopped("provider_error", nothing_said(found))
        return text, found


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
            request = replace(request, schema=question.guide)
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
        return text, _in_a_therapists_words(text)


def _in_a_therapists_words(text: str) -> dict[str, Any]:
    """Return facts of what was found in a therapist's turn. Told, not cut: what it writes is what is measured."""
    speaks_for_patient = any(label.role == "patient" for label in inner_labels(text, {}))
    return {"speaks_for_patient": 1} if speaks_for_patient else {}


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
            raise SpeakerStopped("content_filter", f"the patient's model answered with refusal{_quoted(text)}")
        if thinking and not text.strip():
            raise SpeakerStopped("provider_error", f"the patient's model gave thinking, but no answer; {THINK_LESS}")
        text, found = self.part.words(text)
        if not text.strip() and found:
            raise SpeakerStopped("provider_error", nothing_said(found))
        return text, found


def _quoted(text: str) -> str:
    words = " ".join(text.split())[:SHOWN]
    return f": {words!r}" if words else ""


def patient_words(text: str, names: Mapping[str, Role], forbidden: Sequence[str]) -> tuple[str, dict[str, int]]:
    """Return what a patient says themselves in ``text``, without ``forbidden`` special tokens, and counts of what was
    taken out."""
    counts: dict[str, int] = {}
    for special in forbidden:
        if special in text:
            counts["special_tokens_removed"] = counts.get("special_tokens_removed", 0) + text.count(special)
            text = text.replace(special, " ")
    text, labels, cut = own_words(text, "patient", names)
    return text, counts | {
        name: count for name, count in (("labels_removed", labels), ("other_speaker_cut", cut)) if count
    }


def nothing_said(found: Mapping[str, int]) -> str:
    """Return why nothing is left of what a patient's model has said."""
    words = "spoke for the therapist only" if found.get("other_speaker_cut") else SPECIALS_ONLY
    return f"the patient's model {words}"


def own_words(text: str, role: Role, names: Mapping[str, Role]) -> tuple[str, int, int]:
    """Return what the speaker of ``role`` says themselves in ``text``: without their own labels, and nothing from the
    other speaker's label on; how many labels were taken out; how many characters were cut. ``names`` are labels beside
    the common ones."""
    kept: list[str] = []
    end = labels = 0
    for label in inner_labels(text, names):
        kept.append(text[end : label.start])
        end = label.end
        if label.role != role:
            return "".join(kept).strip(), labels, len(text) - label.start
        labels += 1
    return "".join([*kept, text[end:]]).strip() if labels else text, labels, 0
