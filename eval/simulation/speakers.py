"""The speakers of a simulated session: a patient behind an API or on this machine, a therapist on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.simulation.dialogue import SpeakerStopped, Spoken
from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.generation.request import BadRequest, ContextOverflow, RequestFailed
from cbtrain.providers.answers.refusals import leaves_role
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.provider import Provider
from cbtrain.providers.structured import cut_short, thought
from cbtrain.providers.types import ChatRequest, Message
from cbtrain.text.thinking import without_thinking
from cbtrain.tokens.dialogue import dialogue, patient_system
from cbtrain.transcripts.labels import inner_labels, names_of
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Ending, Role, Turn

SHOWN = 120
"""Characters of a refusal that its session's error shows."""

SPECIALS_ONLY = "said nothing but labels and special tokens"
THINK_LESS = (
    "raise evaluation.patient.max_tokens, or have the model think less (evaluation.patient_provider.extra_body), and "
    "evaluate again"
)


class ApiPatient:
    """Plays ``profile`` through ``provider``. ``instructions`` come with the full profile for a general model; an
    adapter trained here gets, with none, exactly the prompt of its training. ``forbidden`` are special tokens of the
    therapist, which in a patient's mouth would end or open turns: they are taken out and counted. So are thinking, the
    patient's own label, and all that follows the therapist's label."""

    def __init__(
        self,
        provider: Provider,
        profile: Profile | None,
        sampling: SamplingConfig,
        instructions: str | None,
        *,
        forbidden: Sequence[str] = (),
    ) -> None:
        self.provider, self.sampling, self.forbidden = provider, sampling, forbidden
        self.system, self.names = patient_system(profile), names_of(profile, ())
        if instructions:
            self.system = "\n\n".join(filter(None, [self.system, profile.text if profile else "", instructions]))

    async def speak(self, turns: Sequence[Turn], seed: int) -> Spoken:
        messages = tuple(Message(m.role, m.content) for m in dialogue(turns, "patient", self.system))  # type: ignore[arg-type]
        request = ChatRequest(
            messages,
            max_tokens=self.sampling.max_tokens,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            seed=seed,
        )
        try:
            response = await self.provider.chat(request, sample=seed)
        except ProviderError as error:
            if error.kind == "context_overflow":
                raise SpeakerStopped("context_limit", str(error)) from None
            endings: dict[str, Ending] = {"content_filter": "content_filter", "budget": "budget"}
            raise SpeakerStopped(endings.get(error.kind, "provider_error"), str(error)) from None
        if response.finish_reason in ("content_filter", "refusal") or leaves_role(response.text):
            what = "content_filter" if response.finish_reason == "content_filter" else "refusal"
            raise SpeakerStopped("content_filter", f"the patient's model answered with {what}{_quoted(response.text)}")
        if not response.text.strip():
            hint = f"; {THINK_LESS}" if thought(response) else ""
            raise SpeakerStopped("provider_error", f"the patient's model gave {cut_short(request, response)}{hint}")
        facts: dict[str, Any] = {
            "finish_reason": response.finish_reason,
            **{name: count for name, count in asdict(response.usage).items() if count},
            "model": response.model,
            "latency_s": round(response.latency_s, 3),
            "attempts": response.attempts,
        }
        if response.thinking:
            facts["thinking_removed"] = response.thinking
        text, found = patient_words(response.text, self.names, self.forbidden)
        if not text.strip():
            raise SpeakerStopped("provider_error", nothing_said(found))
        return Spoken(text, facts | found)


class LocalSpeaker:
    """Says its turns with a model in this process. ``ids`` are the tokens of its session's turns, by index: whoever
    records turns fills them in."""

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
    ) -> None:
        self.model, self.sampling, self.system = model, sampling, system
        self.adapter, self.voice, self.ids = adapter, voice, ids

    async def speak(self, turns: Sequence[Turn], seed: int) -> Spoken:
        messages = dialogue(turns, self.role, self.system, self.ids)
        try:
            done = await self.model.answer(messages, self.sampling, seed=seed, adapter=self.adapter, voice=self.voice)
        except ContextOverflow as error:
            raise SpeakerStopped("context_limit", str(error)) from None
        except (UserError, BadRequest, RequestFailed) as error:
            raise SpeakerStopped("internal_error", str(error)) from None
        facts: dict[str, Any] = {
            "finish_reason": done.finish_reason,
            "prompt_tokens": done.prompt_tokens,
            "cached_tokens": done.cached_tokens,
            "completion_tokens": len(done.ids),
        }
        text, thinking = without_thinking(done.text)
        if thinking:
            facts["thinking_removed"] = thinking
        text, found = self.words(text, thinking)
        whole = text.strip() == done.text.strip() and not isinstance(done.stopped_by, str)
        return Spoken(text, facts | found, tuple(done.ids) if whole else ())

    def words(self, text: str, thinking: int) -> tuple[str, dict[str, Any]]:
        """Return what is said in ``text``, and facts of what was found in it. ``thinking`` characters are out of it."""
        raise NotImplementedError


class LocalTherapist(LocalSpeaker):
    """An arm: the base, or one of its adapters."""

    role = "therapist"

    def words(self, text: str, thinking: int) -> tuple[str, dict[str, Any]]:
        # Told, not cut: what the therapist writes is what is measured.
        speaks_for_patient = any(label.role == "patient" for label in inner_labels(text, {}))
        return text, {"speaks_for_patient": 1} if speaks_for_patient else {}


class LocalPatient(LocalSpeaker):
    """Plays ``profile`` with an adapter that was trained on patients' turns, and gets exactly the prompt of its
    training. ``forbidden`` as with :class:`ApiPatient`."""

    role = "patient"

    def __init__(
        self,
        model: LocalModel,
        profile: Profile | None,
        sampling: SamplingConfig,
        *,
        adapter: str,
        ids: Mapping[int, Sequence[int]],
        forbidden: Sequence[str] = (),
    ) -> None:
        # A patient that says nothing is no patient: the answer does not end before it has begun.
        sampling = sampling.model_copy(update={"min_tokens": max(sampling.min_tokens, 1)})
        super().__init__(model, sampling, patient_system(profile), adapter=adapter, ids=ids)
        self.names, self.forbidden = names_of(profile, ()), forbidden

    def words(self, text: str, thinking: int) -> tuple[str, dict[str, Any]]:
        if leaves_role(text):
            raise SpeakerStopped("content_filter", f"the patient's model answered with refusal{_quoted(text)}")
        if thinking and not text.strip():
            raise SpeakerStopped("provider_error", f"the patient's model gave thinking, but no answer; {THINK_LESS}")
        text, found = patient_words(text, self.names, self.forbidden)
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
