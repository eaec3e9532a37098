"""The speakers of a simulated session: a patient behind an API, a therapist on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.simulation.dialogue import SpeakerStopped, Spoken
from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.engine import ContextOverflow
from cbtrain.generation.local_model import LocalModel
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
            words = " ".join(response.text.split())[:SHOWN]
            quoted = f": {words!r}" if words else ""
            raise SpeakerStopped("content_filter", f"the patient's model answered with {what}{quoted}")
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
        text, removed = response.text, 0
        for special in self.forbidden:
            removed += text.count(special)
            text = text.replace(special, " ")
        if removed:
            facts["special_tokens_removed"] = removed
        if response.thinking:
            facts["thinking_removed"] = response.thinking
        text, labels, cut = own_words(text, "patient", self.names)
        if labels:
            facts["labels_removed"] = labels
        if cut:
            facts["other_speaker_cut"] = cut
        if not text.strip():
            only = "spoke for the therapist only" if cut else "said nothing but labels and special tokens"
            raise SpeakerStopped("provider_error", f"the patient's model {only}")
        return Spoken(text, facts)


class LocalTherapist:
    """An arm: the local model with its adapter on or off."""

    def __init__(self, model: LocalModel, sampling: SamplingConfig, system: str, *, adapter: bool) -> None:
        self.model, self.sampling, self.system, self.adapter = model, sampling, system, adapter

    async def speak(self, turns: Sequence[Turn], seed: int) -> Spoken:
        messages = dialogue(turns, "therapist", self.system)
        try:
            done = await self.model.answer(messages, self.sampling, seed=seed, adapter=self.adapter)
        except ContextOverflow as error:
            raise SpeakerStopped("context_limit", str(error)) from None
        except UserError as error:
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
        # Told, not cut: what the therapist writes is what is measured.
        if any(label.role == "patient" for label in inner_labels(text, {})):
            facts["speaks_for_patient"] = 1
        return Spoken(text, facts)


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
