"""Have an LLM judge rate all sessions: many at once, each answer on disk before the next is paid for."""

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
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession, session_progress, ticking, together
from cbtrain.journal import Journal
from cbtrain.journal import read as read_journal
from cbtrain.providers.provider import Provider


async def judge_sessions(
    provider: Provider,
    rubric: Rubric,
    sessions: Sequence[SimulatedSession],
    config: JudgingConfig,
    journal: Journal,
    console: Console,
    status: Callable[[float], str] = lambda share: "",
) -> list[Score]:
    """Ratings of ``sessions``, ``config.judge.repeats`` each, in their order.

    Ratings that the journal holds for the same dialogue, judge and rubric are not asked for again, but where they came
    to nothing. ``status`` says how things stand with the API, given the share of the work that is done.
    """
    past, tries = _past_ratings(journal, rubric)
    progress = session_progress(console)
    wanted = [(session, repeat) for session in sessions for repeat in range(config.judge.repeats)]
    task = progress.add_task("judge", total=len(wanted), line="")
    unrated = done = 0

    def show() -> None:
        line = ", ".join(filter(None, [status(done / len(wanted)), f"{unrated} not rated" if unrated else ""]))
        progress.update(task, completed=done, line=line)

    async def rating(session: SimulatedSession, repeat: int) -> Score:
        nonlocal unrated, done
        key = _key(session, repeat, rubric, config)
        score = past.get(key)
        if score is None:
            score = await judge_session(
                provider,
                rubric,
                session.turns,
                config.judge,
                session_id=session.id,
                arm=session.arm,
                patient=session.patient,
                seed=session.seed,
                repeat=repeat,
                tries=tries.get(key),
            )
            await asyncio.to_thread(journal.append, "rating", key=key, score=asdict(score))
        unrated += score.status != "ok"
        done += 1
        show()
        return score

    with progress:
        async with ticking(show):
            return await together(rating(session, repeat) for session, repeat in wanted)


def _past_ratings(journal: Journal, rubric: Rubric) -> tuple[dict[str, Score], dict[str, Counter[str]]]:
    """Ratings by their key, and how often a call for one (by its first domain) was answered in vain: what ended in an
    error, or for want of money, was not answered at all."""
    past: dict[str, Score] = {}
    tries: dict[str, Counter[str]] = defaultdict(Counter)
    for event in read_journal(journal.path):
        if event["kind"] != "rating":
            continue
        key, score = event["key"], event["score"]
        if score["status"] in ("ok", "unratable"):
            past[key] = Score(**score)
        elif score["status"] in ("invalid", "refused", "truncated"):
            tries[key][score.get("stopped_at") or rubric.domains[0].id] += 1
    return past, tries


def _key(session: SimulatedSession, repeat: int, rubric: Rubric, config: JudgingConfig) -> str:
    """What decides a rating: the dialogue, who rates it, by what, and how it is asked."""
    asked: dict[str, Any] = {
        "session": session.id,
        "turns": [(turn.role, turn.text) for turn in session.turns],
        "repeat": repeat,
        "rubric": rubric.model_dump(mode="json"),
        "judge": config.judge.model_dump(mode="json", exclude={"repeats"}),
        "model": config.provider.identity(),
    }
    return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()
