"""Have an LLM judge rate all sessions, many at once. Each answer is on disk before the next is paid for."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from cbtrain.eval.rating.config import JudgingConfig
from cbtrain.eval.rating.judge import judge_session
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score, is_score
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.watching.display import Display
from cbtrain.journal import Journal, Shape, is_text
from cbtrain.journal import read as read_journal
from cbtrain.providers.provider import Provider

SHAPES: dict[str, Shape] = {"rating": {"key": is_text, "score": is_score}}
"""The fields that ratings of earlier processes must have."""


async def judge_sessions(
    provider: Provider,
    rubric: Rubric,
    sessions: Sequence[SimulatedSession],
    config: JudgingConfig,
    journal: Journal,
    display: Display | None = None,
) -> list[Score]:
    """Return ratings of ``sessions`` in their order, ``config.judge.repeats`` each.

    A rating that the journal holds for the same dialogue, judge and rubric is not asked for again, unless it has no
    scores for want of a usable answer. ``display`` shows how far they are. After ``provider.stop`` no request is sent:
    raises Stopped once the answers to earlier ones are recorded.
    """
    earlier_ratings, tries = _earlier_ratings(journal, rubric)
    wanted = [
        (session, repeat, None if why_unratable(session.turns) else _key(session, repeat, rubric, config))
        for session in sessions
        for repeat in range(config.judge.repeats)
    ]
    keys, done = [key for *_, key in wanted if key], 0
    earlier = sum(key in earlier_ratings for key in keys)
    if earlier < len(keys):
        journal.append("ratings_planned", ratings=len(keys), earlier=earlier, judge=config.provider.model)

    async def rating(session: SimulatedSession, repeat: int, key: str | None) -> Score:
        """``key`` is None if the session cannot be rated. Older versions have sent such sessions, too, and kept what
        came back, which is not used."""
        nonlocal done
        score = earlier_ratings.get(key) if key else None
        if score is None:
            earlier_tries = tries.get(key) if key else None
            score = await judge_session(provider, rubric, session, config.judge, repeat=repeat, tries=earlier_tries)
            if key:
                await asyncio.to_thread(journal.append, "rating", key=key, score=score.record())
        done += 1
        return score.placed_as(session)

    async with display.shown() if display else nullcontext():
        works = (rating(session, repeat, key) for session, repeat, key in wanted)
        return await provider.stop.together(works, lambda: f"{done} of {len(wanted)} ratings done")


def _earlier_ratings(journal: Journal, rubric: Rubric) -> tuple[dict[str, Score], dict[str, Counter[str]]]:
    """Return the usable ratings by their key, and how many answers to a call for one (by the call's first domain) were
    of no use. A rating that ended in an error, or for want of money, had no answer at all."""
    earlier_ratings: dict[str, Score] = {}
    tries: dict[str, Counter[str]] = defaultdict(Counter)
    for event in read_journal(journal.path, SHAPES):
        if event["kind"] != "rating":
            continue
        key, score = event["key"], event["score"]
        if score["status"] in ("ok", "unratable"):
            earlier_ratings[key] = Score(**score)
        elif score["status"] in ("invalid", "refused", "truncated"):
            tries[key][score.get("stopped_at") or rubric.domains[0].id] += 1
    return earlier_ratings, tries


def _key(session: SimulatedSession, repeat: int, rubric: Rubric, config: JudgingConfig) -> str:
    """Return a digest of all that a rating depends on: the dialogue, the judge, the rubric, and how the judge is
    asked."""
    inputs: dict[str, Any] = {
        "session": session.id,
        "turns": [(turn.role, turn.text) for turn in session.turns],
        "repeat": repeat,
        "rubric": rubric.model_dump(mode="json"),
        "judge": config.judge.model_dump(mode="json", exclude={"repeats"}),
        "model": config.provider.identity(),
    }
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()
