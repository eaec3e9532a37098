"""A pair of answers to the same dialogue, one chosen over the other, as a session.

Reading, cleaning, splitting and counting then serve pairs as they serve sessions; only the turns of the chosen answer
have a weight in the loss of supervised training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from cbtrain.errors import UserError
from cbtrain.transcripts.types import Course, Preference, Session, Turn

SAME = "chosen and rejected are the same words"
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
        raise UserError(SAME, where=session.where or session.id, hint=FIX)
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


def all_turns(session: Session) -> Iterator[Turn]:
    """Yield every turn that is in the session's source: those of a pair's rejected answer after the others."""
    yield from session.turns
    if session.preference is not None:
        yield from session.preference.rejected


def with_parts_changed(session: Session, change: Callable[[Session, int], Session]) -> Session:
    """Return a pair with ``change`` made to prompt, chosen and rejected answer apart, so that nothing crosses a border.

    ``change`` gets a session with the turns of one part and the index of its first turn, those of the rejected answer
    counted after all others. Only the prompt has the preamble.
    """
    preference = session.preference
    assert preference is not None
    begin = preference.begin
    prompt = change(replace(session, turns=session.turns[:begin], preference=None), 0)
    answer = replace(session, preamble="", preference=None)
    chosen = change(replace(answer, turns=session.turns[begin:]), begin)
    rejected = change(replace(answer, turns=preference.rejected), len(session.turns))
    changed = replace(preference, begin=len(prompt.turns), rejected=rejected.turns)
    return replace(prompt, turns=(*prompt.turns, *chosen.turns), preference=changed)


def why_no_pair(session: Session) -> str:
    """Return why the session of a pair is none any more, as after cleaning; "" if it is one."""
    preference = session.preference
    assert preference is not None
    prompt, chosen = session.turns[: preference.begin], session.turns[preference.begin :]
    for name, answer in (("chosen", chosen), ("rejected", preference.rejected)):
        if problem := why_no_answer(prompt, answer):
            return f"{name}: {problem}"
    return SAME if words(chosen) == words(preference.rejected) else ""


def held_out_name(course: Course) -> str:
    """Return what a held-out patient is called in an evaluation: pairs of answers of one patient are courses of their
    own, and one patient."""
    return course.patient if any(session.preference for session in course.sessions) else course.id


def refuse_mixed(first: Session, session: Session) -> None:
    """Raise UserError if one of the two is a pair of answers and the other is not."""
    if (first.preference is None) != (session.preference is None):
        what = "a session among pairs" if session.preference is None else "a pair of answers among sessions"
        hint = "Put pairs and sessions into files of their own."
        raise UserError(f"{what} (the first: {first.where or first.id})", where=session.where or session.id, hint=hint)
