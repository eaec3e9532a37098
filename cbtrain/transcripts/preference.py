"""A pair of answers to the same dialogue, one chosen over the other, as a session.

Reading, cleaning, splitting and counting then serve pairs as they serve sessions; only the turns of the chosen answer
have a weight in the loss of supervised training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from cbtrain.errors import UserError
from cbtrain.transcripts.types import Preference, Session, Turn

FIX = "Mend or remove the record, or leave out bad ones with corpus.skip_bad=true."


def pair_session(
    session: Session,
    chosen: Sequence[Turn],
    rejected: Sequence[Turn],
    weight: float = 1.0,
) -> Session:
    """Return ``session``, whose turns are the prompt, as the pair of ``chosen`` and ``rejected``.

    The prompt is empty or ends with the patient, answers begin and end with the therapist, speakers alternate. The
    therapist's turns of the prompt get weight 0: they were not chosen over anything. Raises UserError, with the place
    of the session, if this is not so, if both answers have the same words, or if the weight is not above 0.
    """
    prompt = [replace(turn, weight=0.0) if turn.role == "therapist" else turn for turn in session.turns]
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if problem := why_no_answer(prompt, answer):
            raise UserError(f"{name}: {problem}", where=session.where or session.id, hint=FIX)
    if words(chosen) == words(rejected):
        raise UserError("chosen and rejected are the same words", where=session.where or session.id, hint=FIX)
    if not 0 < weight < float("inf"):
        problem = f"weight {weight} is not above 0"
        raise UserError(problem, where=session.where or session.id, hint="Leave a pair out that is to have no weight.")
    preference = Preference(len(prompt), tuple(rejected), weight)
    return replace(session, turns=(*prompt, *chosen), preference=preference)


def why_no_answer(prompt: Sequence[Turn], answer: Sequence[Turn]) -> str:
    """Return why ``answer`` does not continue ``prompt``, "" if it does."""
    if not answer:
        return "no turn"
    for number, turn in enumerate(answer, 1):
        if not turn.text.strip():
            return f"turn {number} has no text"
    if answer[0].role != "therapist":
        return "it begins with the patient, but the therapist is to answer"
    if answer[-1].role != "therapist":
        return "it ends with the patient, but the therapist's words are compared"
    for number, (before, turn) in enumerate(pairwise([*prompt, *answer]), 2):
        if before.role == turn.role:
            return f"turns {number - 1} and {number} are both the {turn.role}'s: roles do not alternate"
    return ""


def words(turns: Sequence[Turn]) -> list[tuple[str, str]]:
    """Return speakers and words, as far as white space at their ends does not matter."""
    return [(turn.role, turn.text.strip()) for turn in turns]


def rejected_session(session: Session) -> Session:
    """Return the session of a pair as it would have gone on with the rejected answer."""
    assert session.preference is not None
    return replace(session, turns=(*session.turns[: session.preference.begin], *session.preference.rejected))
