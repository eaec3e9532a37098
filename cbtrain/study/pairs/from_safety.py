"""Pairs from answers that were found unsafe: a better answer to the same dialogue state is chosen over each.

The better one is a person's own, or another session's answer to the same state. No text is ever made up here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from cbtrain.errors import UserError
from cbtrain.study.pairs.made import MadePairs
from cbtrain.study.pairs.safety_form import Judged
from cbtrain.study.pairs.suspects import Reply
from cbtrain.study.pairs.writing import SYSTEM, made_by
from cbtrain.transcripts.preference import pair_session
from cbtrain.transcripts.types import Session, Turn

UNJUDGED = "answers to words of suicide or self-harm that no person has judged"
NO_ANSWER = "unsafe answers without a better one: write it in the form (--answers), column better"
UNUSABLE = "unsafe answers that cannot be a pair with the better one"
AGAIN = "pairs came again word for word"

Place = tuple[str, str, int]


def pairs_of_safety(replies: Sequence[Reply], judged: Mapping[Place, Judged], facts: Mapping[str, str]) -> MadePairs:
    """Return a pair for each of ``replies`` that is unsafe, by a person's verdict in ``judged``, or, where it has none,
    by a fault that was found. ``facts`` are added to those of each pair."""
    left_out: Counter[str] = Counter()
    by_state: dict[tuple[Any, ...], list[Reply]] = defaultdict(list)
    for reply in replies:
        by_state[reply.state].append(reply)
    pairs: dict[tuple[Any, ...], Session] = {}
    for reply in replies:
        if not _unsafe(reply, judged):
            left_out[UNJUDGED] += bool(reply.found) and not _verdict(reply, judged)
            continue
        chosen = _better(reply, by_state[reply.state], judged)
        if chosen is None:
            left_out[NO_ANSWER] += 1
        elif (pair := _pair(reply, chosen, judged, facts)) is None:
            left_out[UNUSABLE] += 1
        elif pairs.setdefault((reply.state, chosen[0], reply.said.text.strip()), pair) is not pair:
            left_out[AGAIN] += 1
    return MadePairs(list(pairs.values()), +left_out)


def _verdict(reply: Reply, judged: Mapping[Place, Judged]) -> str:
    return judged[reply.place].verdict if reply.place in judged else ""


def _unsafe(reply: Reply, judged: Mapping[Place, Judged]) -> bool:
    return (_verdict(reply, judged) or ("unsafe" if reply.faulty else "")) == "unsafe"


def _better(
    reply: Reply, same_state: Sequence[Reply], judged: Mapping[Place, Judged]
) -> tuple[str, dict[str, str]] | None:
    """Return the words that are chosen over ``reply``, and where they come from; None if there are none. An answer in
    which or before which something was found is taken only if a person called it safe."""
    if reply.place in judged and judged[reply.place].better:
        return judged[reply.place].better, {"chosen_by": "a person's own words"}
    for other in same_state:
        safe = _verdict(other, judged) == "safe" or (not other.found and not _unsafe(other, judged))
        text = other.said.text.strip()
        if safe and text and text != reply.said.text.strip():
            session = other.session
            facts = {"chosen_run": other.run, "chosen_session": session.id, "chosen_arm": session.arm}
            by = "a person's verdict" if _verdict(other, judged) == "safe" else "nothing found in it by rule"
            return text, facts | {"chosen_by": by} | other.plan.model_facts(session, "chosen")
    return None


def _pair(
    reply: Reply, chosen: tuple[str, dict[str, str]], judged: Mapping[Place, Judged], facts: Mapping[str, str]
) -> Session | None:
    session, (text, origin) = reply.session, chosen
    known = [reply.plan.system(session), reply.plan.known(session)]
    said = {
        "source": "safety",
        "found": ", ".join(reply.found),
        "rejected_by": "a person's verdict" if _verdict(reply, judged) else "rule",
        **origin,
        "rejected_run": reply.run,
        "rejected_session": session.id,
        "rejected_arm": session.arm,
        "rejected_seed": str(session.seed),
        **reply.plan.model_facts(session, "rejected"),
        "turn": str(reply.turn + 1),
        **facts,
        "made_by": made_by(),
        SYSTEM: "\n\n".join(filter(None, known)),
    }
    said = {name: value for name, value in said.items() if value}
    id_ = f"{reply.run}.{session.id}.turn-{reply.turn + 1}"
    prompt = tuple(session.turns[: reply.turn])
    bare = Session(id_, 1, prompt, f"{reply.run}/{session.id}", patient=session.patient, facts=said)
    try:
        return pair_session(bare, [Turn("therapist", text)], [Turn("therapist", reply.said.text)])
    except UserError:
        return None
