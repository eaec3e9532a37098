"""Prompts from transcripts: beginnings of sessions, up to where the therapist speaks next."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cbtrain.errors import UserError
from cbtrain.files import text_digest
from cbtrain.tokens.config import TokensConfig
from cbtrain.tokens.dialogue import own_prompt, system_prompts
from cbtrain.transcripts.preference import why_no_answer
from cbtrain.transcripts.types import Course, Session, Turn


@dataclass(frozen=True, slots=True)
class Prompt:
    """The turns of ``session`` before index ``turn``, which is the therapist's. ``system``: the system prompt with
    which a therapist is trained on this session, "" for none; ``own``: the data give it with the session."""

    session: Session
    turn: int
    system: str
    own: bool

    @property
    def turns(self) -> Sequence[Turn]:
        return self.session.turns[: self.turn]

    @property
    def chosen(self) -> Turn:
        """What the transcript's therapist said next."""
        return self.session.turns[self.turn]

    @property
    def key(self) -> str:
        """A name that no other prompt has: place and digest of all that is asked."""
        words = [[turn.role, turn.text] for turn in self.turns]
        return f"{self.session.id}@{self.turn + 1}:{text_digest(json.dumps([self.system, words]))}"


def draw_prompts(courses: Iterable[Course], per_session: int, seed: int, tokens: TokensConfig) -> list[Prompt]:
    """Return at most ``per_session`` prompts of each session, in the order of the corpus. More of them for the same
    ``seed`` contain the fewer. Turns that are context only (weight 0) are no chosen answers. Raises UserError on a
    session that is a pair already."""
    prompts = []
    for course in courses:
        if pair := next((session for session in course.sessions if session.preference is not None), None):
            hint = "Name transcripts; pairs that are there already can be trained as they are."
            raise UserError("it is a pair of answers, no session", where=pair.where or pair.id, hint=hint)
        for session, system in zip(course.sessions, system_prompts(course, "therapist", tokens), strict=True):
            places = [index for index in range(len(session.turns)) if _is_answer(session, index)]
            random.Random(f"{seed}|{session.id}").shuffle(places)
            own = tokens.system == "data" and bool(own_prompt(session))
            prompts += [Prompt(session, index, system, own) for index in sorted(places[:per_session])]
    return prompts


def _is_answer(session: Session, index: int) -> bool:
    turn = session.turns[index]
    if turn.role != "therapist" or not turn.weight:
        return False
    return not why_no_answer(session.turns[:index], [turn])
