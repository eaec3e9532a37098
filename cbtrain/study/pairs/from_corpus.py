"""Pairs from transcripts: what the therapist said, or a large model says, is chosen; a model's own answer is rejected.

After arXiv 2509.09712, where prompts are beginnings of dialogues, a large model's answers are chosen and the base's are
rejected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cbtrain.errors import UserError
from cbtrain.study.pairs.answers import Answer
from cbtrain.study.pairs.made import MadePairs
from cbtrain.study.pairs.prompts import Prompt
from cbtrain.study.pairs.writing import SYSTEM, made_by
from cbtrain.transcripts.preference import pair_session
from cbtrain.transcripts.types import Session, Turn

WHY = {
    "context_limit": "prompts that are longer than the model's context",
    "content_filter": "prompts whose answer the API filtered",
}
FACTS = {"model": "model_as_returned"}
"""Facts of an answer that are called otherwise in a pair: an API may answer with a longer name of its model."""

EMPTY = "answers without words"
SAME = "answers that say the same on both sides"
CUT = "answers cut at the longest length (--max-tokens; --keep-cut keeps them)"
UNUSABLE = "answers that cannot be a pair"


def pairs_of_corpus(
    prompts: Sequence[Prompt],
    answers: Mapping[str, Answer],
    facts: Mapping[str, str],
    *,
    chosen: Mapping[str, Answer] | None = None,
    keep_cut: bool = False,
) -> MadePairs:
    """Return the pairs of ``prompts``: ``answers`` (by key) are rejected, ``chosen`` ones (None: the transcript's) are
    chosen. ``facts`` are added to those of each pair. ``keep_cut``: answers that ended at the longest length are kept.
    """
    left_out: Counter[str] = Counter()
    pairs = []
    for prompt in prompts:
        answer = answers[prompt.key]
        better = Answer(prompt.chosen.text, "", {}) if chosen is None else chosen[prompt.key]
        why = _why_not(answer, keep_cut=keep_cut) or _why_not(better, keep_cut=keep_cut)
        if why := why or (SAME if answer.text.strip() == better.text.strip() else ""):
            left_out[why] += 1
        elif (pair := _pair(prompt, better, answer, facts)) is None:
            left_out[UNUSABLE] += 1
        else:
            pairs.append(pair)
    return MadePairs(pairs, left_out)


def _why_not(answer: Answer, *, keep_cut: bool) -> str:
    if answer.problem:
        return WHY.get(answer.problem, UNUSABLE)
    if not answer.text.strip():
        return EMPTY
    return CUT if answer.cut and not keep_cut else ""


def _pair(prompt: Prompt, better: Answer, answer: Answer, facts: Mapping[str, str]) -> Session | None:
    session = prompt.session
    of_answers = {
        f"{side}_{FACTS.get(name, name)}": str(value)
        for side, given in (("chosen", better), ("rejected", answer))
        for name, value in given.facts.items()
    }
    said = {
        "source": "corpus",
        "session": session.id,
        "turn": str(prompt.turn + 1),
        **facts,
        **of_answers,
        "made_by": made_by(),
        **({SYSTEM: prompt.system} if prompt.own else {}),
    }
    id_ = f"{session.course}.{session.number}.turn-{prompt.turn + 1}"
    patient = session.patient or session.course
    bare = Session(id_, 1, tuple(prompt.turns), session.where, patient=patient, facts=said)
    try:
        return pair_session(bare, [Turn("therapist", better.text)], [Turn("therapist", answer.text)])
    except UserError:
        return None
