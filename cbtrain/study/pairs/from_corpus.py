"""Pairs from transcripts: what the therapist said is chosen, a model's own answer to the same beginning is rejected.

The way of arXiv 2509.09712: "prompts" are beginnings of dialogues, the base's own continuation is the worse answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cbtrain.errors import UserError
from cbtrain.study.pairs.answers import Answer
from cbtrain.study.pairs.made import MadePairs
from cbtrain.study.pairs.pair_line import SYSTEM
from cbtrain.study.pairs.prompts import Prompt
from cbtrain.study.pairs.writing import made_by
from cbtrain.transcripts.preference import pair_session
from cbtrain.transcripts.types import Session, Turn

WHY = {
    "context_limit": "prompts that are longer than the model's context",
    "content_filter": "prompts whose answer the API filtered",
}
FACTS = {"model": "model_as_returned"}
"""Facts of an answer that are called otherwise in a pair: an API may answer with a longer name of its model."""

EMPTY = "answers without words"
SAME = "answers that say what the transcript says"
CUT = "answers cut at the longest length (--max-tokens; --keep-cut keeps them)"
UNUSABLE = "answers that cannot be a pair with the transcript's"


def pairs_of_corpus(
    prompts: Sequence[Prompt], answers: Mapping[str, Answer], facts: Mapping[str, str], *, keep_cut: bool = False
) -> MadePairs:
    """Return the pairs of ``prompts`` with their ``answers`` (by key); ``facts`` are added to those of each pair.
    ``keep_cut``: answers that ended at the longest length are kept."""
    left_out: Counter[str] = Counter()
    pairs = []
    for prompt in prompts:
        answer = answers[prompt.key]
        if why := _why_not(prompt, answer, keep_cut=keep_cut):
            left_out[why] += 1
        elif (pair := _pair(prompt, answer, facts)) is None:
            left_out[UNUSABLE] += 1
        else:
            pairs.append(pair)
    return MadePairs(pairs, left_out)


def _why_not(prompt: Prompt, answer: Answer, *, keep_cut: bool) -> str:
    if answer.problem:
        return WHY.get(answer.problem, UNUSABLE)
    if not answer.text.strip():
        return EMPTY
    if answer.text.strip() == prompt.chosen.text.strip():
        return SAME
    return CUT if answer.cut and not keep_cut else ""


def _pair(prompt: Prompt, answer: Answer, facts: Mapping[str, str]) -> Session | None:
    session = prompt.session
    said = {
        "source": "corpus",
        "session": session.id,
        "turn": str(prompt.turn + 1),
        **facts,
        **{f"rejected_{FACTS.get(name, name)}": str(value) for name, value in answer.facts.items()},
        "made_by": made_by(),
        **({SYSTEM: prompt.system} if prompt.own else {}),
    }
    id_ = f"{session.course}.{session.number}.turn-{prompt.turn + 1}"
    patient = session.patient or session.course
    bare = Session(id_, 1, tuple(prompt.turns), session.where, patient=patient, facts=said)
    try:
        return pair_session(bare, [Turn("therapist", prompt.chosen.text)], [Turn("therapist", answer.text)])
    except UserError:
        return None
