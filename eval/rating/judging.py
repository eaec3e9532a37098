"""Have an LLM judge rate all sessions, many at once. Each answer is on disk before the next is paid for."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from cbtrain.eval.rating.config import JudgingConfig
from cbtrain.eval.rating.judge import judge_session
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score, is_score
from cbtrain.eval.simulation.runner import SimulatedSession, session_progress, ticking
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
    console: Console,
    status: Callable[[float], str] = lambda share: "",
) -> list[Score]:
    """Return ratings of ``sessions`` in their order, ``config.judge.repeats`` each.

    A rating that the journal holds for the same dialogue, judge and rubric is not asked for again, unless it has no
    scores for want of a usable answer. ``status(share)`` describes the state of the API, given the share of the work
    that is done. After ``provider.stop`` no request is sent: raises Stopped once the answers to earlier ones are
    recorded.
    """
    earlier_ratings, tries = _earlier_ratings(journal, rubric)
    wanted = [(session, repeat) for session in sessions for repeat in range(config.judge.repeats)]
    bar = _RatingBar(len(wanted), console, status)

    async def rating(session: SimulatedSession, repeat: int) -> Score:
        key = _key(session, repeat, rubric, config)
        unratable = bool(why_unratable(session.turns))
        # Older versions have sent unratable sessions, too, and kept what came back.
        score = None if unratable else earlier_ratings.get(key)
        if score is None:
            score = await judge_session(provider, rubric, session, config.judge, repeat=repeat, tries=tries.get(key))
        if key not in earlier_ratings and not unratable:
            await asyncio.to_thread(journal.append, "rating", key=key, score=asdict(score))
        bar.count(score)
        return score

    with bar.progress:
        async with ticking(bar.show):
            works = (rating(session, repeat) for session, repeat in wanted)
            return await provider.stop.together(works, lambda: f"{bar.done} of {len(wanted)} ratings done")


class _RatingBar:
    """A progress bar over ``total`` ratings."""

    def __init__(self, total: int, console: Console, status: Callable[[float], str]) -> None:
        self.total, self.status = total, status
        self.done = self.unrated = 0
        self.progress = session_progress(console)
        self.task = self.progress.add_task("judge", total=total, line="")

    def count(self, score: Score) -> None:
        self.done += 1
        self.unrated += score.status != "ok"
        self.show()

    def show(self) -> None:
        unrated = f"{self.unrated} not rated" if self.unrated else ""
        line = ", ".join(filter(None, [self.status(self.done / self.total), unrated]))
        self.progress.update(self.task, completed=self.done, line=line)


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
