"""A rater's form: sessions under codes, without anything that identifies the arm, and the key to the codes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cbtrain.eval.human_rating.key import KeyForm, KeySession, KeyTraining
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

SESSION_CODE, TRAINING_CODE, FORM_CODE = 4, 5, 6
"""Letters of the codes: none is like one of another kind."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """A score that a rater is shown (None: cannot be rated), with indices of turns, and why."""

    score: float | None
    evidence: list[int] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TrainingSession:
    """A session with the agreed ``opinions``, by domain, and a ``note`` on the whole of it."""

    session: SimulatedSession
    opinions: Mapping[str, Opinion]
    note: str = ""


@dataclass(frozen=True, slots=True)
class BlindSession:
    """A session as a rater sees it: ``turns`` are role and text, in order; ``domains``: ids of those to rate (empty:
    all); ``given``: what others said on them, where that is shown; ``note``: on the agreed scores of a training
    session, whose ``given`` has one opinion each."""

    code: str
    turns: list[tuple[Role, str]]
    domains: list[str] = field(default_factory=list)
    given: Mapping[str, Sequence[Opinion]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """The form of one rater. ``training``: sessions that come first and whose agreed scores are shown afterwards.
    ``settles``: whether it is for domains on which raters differed."""

    id: str
    rubric: Rubric
    sessions: list[BlindSession]
    training: list[BlindSession] = field(default_factory=list)
    settles: bool = False


def make_form(
    sessions: Sequence[SimulatedSession],
    rubric: Rubric,
    rater: int,
    seed: str,
    training: Sequence[BlindSession] = (),
) -> tuple[Form, KeyForm]:
    """Return the form of rater number ``rater``, with ``sessions`` in this order, and its part of the key."""
    rng = random.Random(f"{seed}|codes|{rater}")
    codes = _codes(rng, SESSION_CODE, len(sessions))
    blind = [BlindSession(code, without_marks(session)) for code, session in zip(codes, sessions, strict=True)]
    form = Form(_code(rng, FORM_CODE), rubric, blind, list(training))
    key = [_key(code, session, number) for number, (code, session) in enumerate(zip(codes, sessions, strict=True), 1)]
    return form, KeyForm(id=form.id, rater=rater, sessions=key)


def make_training(
    training: Sequence[TrainingSession], rubric: Rubric, seed: str
) -> tuple[list[BlindSession], list[KeyTraining]]:
    """Return the training sessions as every rater sees them, and their part of the key. They have the same codes in all
    forms, so that raters can talk about them."""
    codes = _codes(random.Random(f"{seed}|training"), TRAINING_CODE, len(training))
    shown, key = [], []
    for number, (code, one) in enumerate(zip(codes, training, strict=True), 1):
        opinions = {domain: one.opinions[domain] for domain in rubric.ids if domain in one.opinions}
        given = {domain: [opinion] for domain, opinion in opinions.items()}
        shown.append(BlindSession(code, without_marks(one.session), given=given, note=one.note))
        agreed = {domain: opinion.score for domain, opinion in opinions.items()}
        key.append(KeyTraining(**_key(code, one.session, number).model_dump(), agreed=agreed))
    return shown, key


def _key(code: str, session: SimulatedSession, number: int) -> KeySession:
    return KeySession(
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


def without_marks(session: SimulatedSession) -> list[tuple[Role, str]]:
    """Return turns without template and end marks. Turns that become empty stay, so that turn numbers are kept."""
    return [(turn.role, _without_marks(turn)) for turn in session.turns]


def _without_marks(turn: Turn) -> str:
    return RESIDUE.sub("", turn.text).strip()


def _codes(rng: random.Random, length: int, count: int) -> list[str]:
    codes: list[str] = []
    while len(codes) < count:
        code = _code(rng, length)
        if code not in codes:
            codes.append(code)
    return codes


def _code(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(LETTERS, k=length))
