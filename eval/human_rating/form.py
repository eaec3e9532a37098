"""A rater's form: sessions under codes, without anything that identifies the arm, and the key to the codes."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from cbtrain.eval.human_rating.key import KeyForm, KeySession
from cbtrain.eval.rating.ratable import RESIDUE
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.transcripts.types import Role, Turn

FORM_SCHEMA = "cbtrain.rating-form/1"
RATINGS_SCHEMA = "cbtrain.ratings/1"
UNRATABLE = "n/a"
"""Replaces a score if a domain cannot be rated from the session."""

LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""Of codes: no vowels, so that they spell no words, and no digits, so that no spreadsheet takes one for a number."""


@dataclass(frozen=True, slots=True)
class BlindSession:
    """A session as a rater sees it: ``turns`` are role and text, in order."""

    code: str
    turns: list[tuple[Role, str]]


@dataclass(frozen=True, slots=True)
class Form:
    """The form of one rater."""

    id: str
    rubric: Rubric
    sessions: list[BlindSession]


def rubric_digest(rubric: Rubric) -> str:
    """Return a digest of all parts of the rubric that raters read."""
    read = rubric.identity()
    for domain in read["domains"]:
        del domain["cues"]
    return _digest(read)


def digest(sessions: Sequence[SimulatedSession], rubric: Rubric) -> str:
    """Return a digest of the sessions, in order, and the rubric: other ones give forms with other ids and codes."""
    read = [[session.id, session.arm, [[turn.role, turn.text] for turn in session.turns]] for session in sessions]
    return _digest([read, rubric_digest(rubric)])


def make_form(sessions: Sequence[SimulatedSession], rubric: Rubric, rater: int, seed: str) -> tuple[Form, KeyForm]:
    """Return the form of rater number ``rater``, with ``sessions`` in this order, and its part of the key."""
    rng = random.Random(f"{seed}|codes|{rater}")
    codes: list[str] = []
    while len(codes) < len(sessions):
        code = _code(rng, 4)
        if code not in codes:
            codes.append(code)
    form = Form(_code(rng, 6), rubric, [BlindSession(*pair) for pair in zip(codes, map(_blind, sessions), strict=True)])
    key = [
        KeySession(
            code=code,
            session_id=session.id,
            arm=session.arm,
            patient=session.patient,
            seed=session.seed,
            number=number,
            turns=len(session.turns),
            session=session.number,
            simulator=session.simulator,
            columns=dict(session.columns),
        )
        for number, (code, session) in enumerate(zip(codes, sessions, strict=True), 1)
    ]
    return form, KeyForm(id=form.id, rater=rater, sessions=key)


def _blind(session: SimulatedSession) -> list[tuple[Role, str]]:
    """Return turns without template and end marks. Turns that become empty stay, so that turn numbers are kept."""
    return [(turn.role, _without_marks(turn)) for turn in session.turns]


def _without_marks(turn: Turn) -> str:
    return RESIDUE.sub("", turn.text).strip()


def _code(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(LETTERS, k=length))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()[:16]
