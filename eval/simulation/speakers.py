"""The speakers of a simulated session: a patient behind an API, a therapist on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from cbtrain.errors import UserError
from cbtrain.eval.simulation.dialogue import SpeakerStopped, Spoken
from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.engine import ContextOverflow
from cbtrain.generation.local_model import LocalModel
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.provider import Provider
from cbtrain.providers.types import ChatRequest, Message
from cbtrain.tokens.dialogue import dialogue, patient_system
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Ending, Turn


class ApiPatient:
    """Plays ``profile`` through ``provider``. ``instructions`` come with the full profile for a general model; an
    adapter trained here gets, with none, exactly the prompt of its training. ``forbidden`` are special tokens of the
    therapist, which in a patient's mouth would end or open turns: they are taken out and counted."""

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
        self.system = patient_system(profile)
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
        if response.finish_reason in ("content_filter", "refusal"):
            raise SpeakerStopped("content_filter", f"the patient's model answered with {response.finish_reason}")
        facts = {
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
        facts = {
            "finish_reason": done.finish_reason,
            "prompt_tokens": done.prompt_tokens,
            "cached_tokens": done.cached_tokens,
            "completion_tokens": len(done.ids),
        }
        return Spoken(done.text, facts)
