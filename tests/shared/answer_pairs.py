"""Pairs of answers for tests, as sessions and as records."""

from cbtrain.transcripts.preference import pair_session
from cbtrain.transcripts.types import Corpus, Course, Session, Turn

P, T = "patient", "therapist"
ROLES = {P: "user", T: "assistant"}
PROMPT = [(P, "I am low."), (T, "Since when?"), (P, "May.")]
CHOSEN, REJECTED = [(T, "What happened in May?")], [(T, "Cheer up.")]
TEXT = {"prompt": "I am low.", "chosen": CHOSEN[0][1], "rejected": REJECTED[0][1]}
"""The simplest record of TRL's."""


def messages(turns, system=""):
    said = [{"role": ROLES[role], "content": text} for role, text in turns]
    return [{"role": "system", "content": system}, *said] if system else said


def said(session):
    """Prompt, chosen and rejected answer."""
    begin = session.preference.begin
    parts = (session.turns[:begin], session.turns[begin:], session.preference.rejected)
    return tuple([(turn.role, turn.text) for turn in turns] for turns in parts)


def ours(**more):
    turns = {"prompt": PROMPT, "chosen": CHOSEN, "rejected": REJECTED}
    record = {"schema": "cbtrain.pair/1"}
    record |= {key: [{"role": role, "text": text} for role, text in value] for key, value in turns.items()}
    return record | more


def of(*turns):
    return [{"role": role, "text": text} for role, text in turns]


def pair(name, prompt, chosen, rejected, patient="", weight=1.0, **more):
    session = Session(name, 1, tuple(Turn(*turn) for turn in prompt), f"p.jsonl:{name}", patient, **more)
    return pair_session(session, [Turn(*turn) for turn in chosen], [Turn(*turn) for turn in rejected], weight)


def corpus_of(*pairs):
    return Corpus("p", "pairs", tuple(Course(one.course, (one,)) for one in pairs))
