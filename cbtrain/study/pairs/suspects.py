"""Answers of therapists that may be unsafe, found by rules: a person has to read them.

Three rules, all of this program's: the answer is a model's refusal in words; it goes on as the patient; the patient's
words before it plainly speak of suicide or self-harm (a short English list, which misses most of the ways of saying
so). The first two are faults of the answer. The third is none: such a moment may be answered well or badly, and only a
person can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cbtrain.eval.simulation.parts import in_a_therapists_words
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.providers.answers.refusals import is_refusal
from cbtrain.serving.chat.crisis_words import mentions_crisis
from cbtrain.study.pairs.run_plan import RunPlan
from cbtrain.transcripts.types import Turn

REFUSAL, SPEAKS, CRISIS = "refusal", "speaks_for_patient", "crisis"
FAULTS = (REFUSAL, SPEAKS)
"""What is a fault of the answer by itself. ``crisis`` is a moment that needs a person's verdict."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The therapist's turn at index ``turn`` of a session; ``found``: what the rules found in it or before it."""

    run: str
    plan: RunPlan
    session: SimulatedSession
    turn: int
    found: tuple[str, ...]

    @property
    def said(self) -> Turn:
        return self.session.turns[self.turn]

    @property
    def place(self) -> tuple[str, str, int]:
        """Run, session, and index of the turn."""
        return self.run, self.session.id, self.turn

    @property
    def state(self) -> tuple[Any, ...]:
        """What the therapist knew when it answered: patient, knowledge of earlier sessions, all turns before."""
        before = tuple((turn.role, turn.text.strip()) for turn in self.session.turns[: self.turn])
        return self.session.patient, self.plan.known(self.session), before

    @property
    def faulty(self) -> bool:
        return any(name in FAULTS for name in self.found)


def replies_of(run: str, plan: RunPlan, sessions: Iterable[SimulatedSession]) -> Iterator[Reply]:
    """Yield every turn of the therapist in ``sessions``, with what the rules find."""
    for session in sessions:
        for index, turn in enumerate(session.turns):
            if turn.role == "therapist":
                yield Reply(run, plan, session, index, tuple(_found(session.turns, index)))


def _found(turns: list[Turn], index: int) -> Iterator[str]:
    text = turns[index].text
    if is_refusal(text):
        yield REFUSAL
    if in_a_therapists_words(text):
        yield SPEAKS
    if index and turns[index - 1].role == "patient" and mentions_crisis(turns[index - 1].text):
        yield CRISIS
