"""Courses of several sessions: what patient and therapist know when a session begins, and the summaries between them.

The summary is the only memory from one session to the next. It is a call of its own, recorded like a turn. If it
cannot be had, the course ends there: nothing is put in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cbtrain.eval.simulation.api_speakers import ApiSpeaker
from cbtrain.eval.simulation.config import SummaryConfig
from cbtrain.eval.simulation.dialogue import SpeakerStopped, Spoken
from cbtrain.eval.simulation.simulators import SessionBegins
from cbtrain.generation.config import SamplingConfig
from cbtrain.providers.answers.refusals import leaves_role
from cbtrain.providers.provider import Provider
from cbtrain.text.words import count_words
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Turn

OPENING = "Hello, I am {name}. This is session {number} of my therapy. {before}"
FIRST, SUMMARY_OF_LAST = "I have been feeling low, and I would like help.", "Here is the summary of our last session:"
"""The patient's first words where the summary is told in them, as in the 2024 study, in words of our own."""


def therapist_prompt(system: str, begins: SessionBegins | None, language: str = "") -> str:
    """Return the therapist's system prompt ``system`` with what is known when the session begins, and the ``language``
    of a patient who does not speak English."""
    if language:
        system = "\n\n".join(filter(None, [system, f"The patient speaks {language}. Speak {language}."]))
    if begins is None:
        return system
    lines = [f"This is session {begins.number} with this patient, in the {begins.phase} phase of treatment."]
    if begins.summary:
        lines += ["The summary written after the last session, which the patient knows too:", begins.summary]
    return "\n\n".join(filter(None, [system, "\n".join(lines)]))


def patient_part(brief: str, begins: SessionBegins | None) -> str:
    """Return the prompt of an adapter that was trained to be a patient, with what is known when the session begins."""
    if begins is None:
        return brief
    parts = [brief, f"This is session {begins.number} of your therapy, in its {begins.phase} phase."]
    if begins.summary:
        parts.append(f"What was written down after your last session:\n{begins.summary}")
    if begins.since:
        parts.append(f"What has happened since:\n{begins.since}")
    return "\n\n".join(parts)


def opening_words(profile: Profile | None, begins: SessionBegins) -> str:
    """Return the patient's first turn where it tells the summary."""
    name = profile.name if profile else "your patient"
    before = f"{SUMMARY_OF_LAST}\n\n{begins.summary}" if begins.summary else FIRST
    return OPENING.format(name=name, number=begins.number, before=before)


class Writer(Protocol):
    """Whoever can write something after a dialogue. Raises SpeakerStopped."""

    async def write(self, turns: Sequence[Turn], request: str, sampling: SamplingConfig, seed: int) -> Spoken: ...


@dataclass(frozen=True)
class Summarizer:
    """Has the summaries of sessions written: by the therapist itself, or by ``provider``."""

    settings: SummaryConfig
    provider: Provider | None = None

    async def summary_of(self, turns: Sequence[Turn], before: str, therapist: Writer, seeds: Sequence[int]) -> Spoken:
        """Return the summary of the session ``turns``, after those whose summary is ``before``; asked for with each of
        ``seeds`` until it is long enough and no refusal. Facts name all requests, and whether it was ``cut`` at its
        longest. Raises SpeakerStopped."""
        settings = self.settings
        sampling = SamplingConfig(temperature=settings.temperature, max_tokens=settings.max_tokens)
        writer: Writer = therapist
        if self.provider is not None:
            system = f"Summary written after the session before:\n{before}" if before else ""
            writer = ApiWriter(self.provider, sampling, system)
        if not any(turn.role == "therapist" for turn in turns):
            raise SpeakerStopped("internal_error", "the therapist said nothing that could be summed up")
        requests: list[str] = []
        problem = ""
        for seed in seeds[: settings.attempts]:
            spoken = await writer.write(turns, settings.prompt, sampling, seed)
            requests += spoken.facts.get("requests", ())
            words, least = count_words(spoken.text), settings.min_words
            problem = f"the summary has {words} words, fewer than {least} (evaluation.course.summary.min_words)"
            if leaves_role(spoken.text):
                problem = "the summary is a refusal"
            elif words >= least:
                facts = {**spoken.facts, **({"requests": requests} if requests else {})}
                facts |= {"cut": True} if spoken.facts.get("finish_reason") == "length" else {}
                return replace(spoken, text=spoken.text.strip(), facts=facts)
        raise SpeakerStopped("provider_error", problem, {"requests": requests})


class ApiWriter(ApiSpeaker):
    """Writes the summaries of all arms, through an API."""

    role = "therapist"
