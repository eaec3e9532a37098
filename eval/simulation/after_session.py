"""Ask the patient after each session, once: every answer is in the journal, and is found there by a later process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from cbtrain.eval.simulation.dialogue import Speaker
from cbtrain.eval.simulation.question import AnswerStatus, Respondent
from cbtrain.eval.simulation.questionnaire import Questionnaire
from cbtrain.eval.simulation.runner import SimulatedSession, turn_seed
from cbtrain.files import text_digest
from cbtrain.journal import Journal, Shape, is_section, is_text, or_none

QUESTIONNAIRE = "questionnaire"
"""The kind of the journal's record of one answered questionnaire."""

FINAL = ("ok", "invalid", "refused")
"""Statuses after which a session is not asked again. An error was no answer; a truncated answer is asked for again
where the limit of tokens has been raised."""

SHAPES: dict[str, Shape] = {
    QUESTIONNAIRE: {
        "session": is_text,
        "questionnaire": is_text,
        "dialogue": is_text,
        "status": lambda value: value in get_args(AnswerStatus),
        "answers": or_none(is_section),
        "problem": is_text,
        "facts": is_section,
    }
}
"""The fields of its records."""


@dataclass(frozen=True, slots=True)
class FilledIn:
    """What a patient said to the questionnaire after ``session``. ``answers``: by item, None unless ``status`` is
    ``ok``; ``problem`` says why there are none."""

    session: str
    status: AnswerStatus
    answers: Mapping[str, Any] | None
    problem: str
    facts: Mapping[str, Any]


@dataclass
class Answers:
    """The answers to ``questionnaire``, by session. ``turn_tokens``: the limit of a patient's turn."""

    questionnaire: Questionnaire
    turn_tokens: int
    filled: dict[str, FilledIn] = field(default_factory=dict)

    @property
    def _limit(self) -> int:
        return self.turn_tokens + self.questionnaire.question.tokens

    def restore(self, sessions: Iterable[SimulatedSession], events: Iterable[Mapping[str, Any]]) -> None:
        """Take over the answers in a journal's ``events`` that were given to this questionnaire after the dialogues
        that ``sessions`` have."""
        dialogues = {session.id: dialogue_digest(session) for session in sessions}
        for event in events:
            if event["kind"] != QUESTIONNAIRE or event["questionnaire"] != self.questionnaire.digest:
                continue
            if dialogues.get(event["session"]) != event["dialogue"]:
                continue
            answers, status = event["answers"], cast(AnswerStatus, event["status"])
            if status == "ok" and not self.questionnaire.accepts(answers):
                answers, status = None, "error"  # changed by hand: asked for again
            filled = FilledIn(event["session"], status, answers, event["problem"], event["facts"])
            self.filled[filled.session] = filled

    def lacks(self, session: SimulatedSession) -> bool:
        """Return whether the patient of ``session`` is still to be asked. Where nothing was said there is nothing to
        ask about."""
        if not session.turns:
            return False
        filled = self.filled.get(session.id)
        if filled is None or filled.status == "error":
            return True
        limit = filled.facts.get("max_tokens")
        return filled.status == "truncated" and (not isinstance(limit, int) or limit < self._limit)


@dataclass(frozen=True, slots=True)
class AskPatients:
    """Has the patient of each session fill in what ``answers`` lack (:class:`cbtrain.eval.simulation.runner.After`).
    ``run_seed``: of the run."""

    answers: Answers
    journal: Journal
    run_seed: int

    def lacks(self, session: SimulatedSession) -> bool:
        return self.answers.lacks(session)

    async def __call__(self, session: SimulatedSession, patient: Speaker, therapist: Speaker) -> None:
        """Ask the patient and record the answer, whatever it is."""
        questionnaire = self.answers.questionnaire
        seed = turn_seed(session, len(session.turns), self.run_seed)
        answered = await cast(Respondent, patient).ask(session.turns, questionnaire.question, seed)
        answer: dict[str, Any] = {
            "status": answered.status,
            "answers": answered.values,
            "problem": answered.problem,
            "facts": answered.facts,
        }
        about: dict[str, Any] = {"questionnaire": questionnaire.digest, "dialogue": dialogue_digest(session)}
        await asyncio.to_thread(self.journal.append, QUESTIONNAIRE, session=session.id, **about, **answer)
        self.answers.filled[session.id] = FilledIn(session.id, **answer)


def dialogue_digest(session: SimulatedSession) -> str:
    """Return a digest of what was said: a session that is held again is asked about again."""
    said: Sequence[tuple[str, str]] = [(turn.role, turn.text) for turn in session.turns]
    return text_digest(json.dumps(said))
