"""A patient's turn that stays in its part: one that drifts is asked for once more, and what is left is flagged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from cbtrain.eval.simulation.dialogue import SpeakerStopped, Spoken
from cbtrain.eval.simulation.drift import drift_in
from cbtrain.eval.simulation.seeds import seed_from
from cbtrain.transcripts.types import Role, Turn

DriftPolicy = Literal["retry", "flag", "ignore"]

OUT_OF_PART = "content_filter"
"""How a turn ends that is a refusal in whole: it is asked for once more, too."""


async def in_character(
    say: Callable[[int], Awaitable[Spoken]],
    turns: Sequence[Turn],
    seed: int,
    names: Mapping[str, Role],
    policy: DriftPolicy,
) -> Spoken:
    """Return what ``say(seed)`` gives after ``turns``, asked once more with another seed if the patient drifts and the
    ``policy`` is ``retry``; the answer with fewer kinds of drift counts, the second if both have as many. ``names``:
    the patient's labels. Facts: ``drift``, the kinds in what is said; ``drift_first``, those of the answer that was not
    taken, with its text.

    Raises SpeakerStopped: a refusal is a failure if it comes twice; if the second try fails, an answer that drifts
    counts.
    """
    if policy == "ignore":
        return await say(seed)
    first: Spoken | SpeakerStopped
    kinds: Sequence[str]
    try:
        first = await say(seed)
        kinds = drift_in(first.text, turns, names)
    except SpeakerStopped as stopped:
        if policy != "retry" or stopped.ending != OUT_OF_PART:
            raise
        first, kinds = stopped, ["refusal"]
    if not kinds or policy == "flag":
        assert isinstance(first, Spoken)
        return _flagged(first, kinds)
    try:
        second = await _again(say, seed, first)
    except SpeakerStopped as stopped:
        if isinstance(first, Spoken) and stopped.ending != "budget":  # there is an answer, if one that drifts
            refused = {"kinds": ["refusal" if stopped.ending == OUT_OF_PART else "failure"], "text": str(stopped)}
            requests = _both_requests({}, stopped.facts)  # already those of both answers
            return _flagged(replace(first, facts={**first.facts, **requests, "drift_first": refused}), kinds)
        raise
    left = drift_in(second.text, turns, names)
    if isinstance(first, Spoken) and len(kinds) < len(left):
        return _flagged(_with(first, second, left), kinds)
    return _flagged(_with(second, first, kinds), left)


async def _again(say: Callable[[int], Awaitable[Spoken]], seed: int, first: Spoken | SpeakerStopped) -> Spoken:
    """Return the second answer. A failure names the requests of both."""
    try:
        return await say(seed_from(f"{seed}|again"))
    except SpeakerStopped as stopped:
        stopped.facts = {**stopped.facts, **_both_requests(first.facts, stopped.facts)}
        raise


def _flagged(spoken: Spoken, kinds: Sequence[str]) -> Spoken:
    return replace(spoken, facts={**spoken.facts, "drift": list(kinds)}) if kinds else spoken


def _with(taken: Spoken, other: Spoken | SpeakerStopped, kinds: Sequence[str]) -> Spoken:
    """Return ``taken`` with facts on the answer that was not taken."""
    text = other.text if isinstance(other, Spoken) else str(other)
    facts = {"drift_first": {"kinds": list(kinds), "text": text}, **_both_requests(other.facts, taken.facts)}
    return replace(taken, facts={**taken.facts, **facts})


def _both_requests(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    requests = [*one.get("requests", ()), *other.get("requests", ())]
    return {"requests": requests} if requests else {}
