"""Have an LLM judge rate all sessions: many at once, each answer on disk before the next is paid for."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.eval.config import JudgingConfig
from cbtrain.eval.judge import judge_session
from cbtrain.eval.rubric import Rubric
from cbtrain.eval.runner import SessionRecord, session_progress
from cbtrain.eval.scores import Score
from cbtrain.journal.journal import Journal
from cbtrain.journal.journal import read as read_journal
from cbtrain.providers.openai import OpenAIProvider


async def judge_sessions(
    provider: OpenAIProvider,
    rubric: Rubric,
    sessions: Sequence[SessionRecord],
    config: JudgingConfig,
    events: Path,
    console: Console,
) -> list[Score]:
    """Ratings of ``sessions``, ``config.judge.repeats`` each, in their order.

    Good ratings that the journal ``events`` holds for the same dialogue, judge and rubric are not asked for again.
    """
    past = {}
    for event in read_journal(events):
        if event["kind"] == "rating" and event["score"]["status"] == "ok":
            past[event["key"]] = Score(**event["score"])
    progress = session_progress(console)
    wanted = [(session, repeat) for session in sessions for repeat in range(config.judge.repeats)]
    task = progress.add_task("judge", total=len(wanted), line="")
    unrated = 0

    async def rating(session: SessionRecord, repeat: int) -> Score:
        nonlocal unrated
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
            )
            journal.append("rating", key=key, score=asdict(score))
        unrated += score.status != "ok"
        progress.update(task, advance=1, line=f"{unrated} not rated" if unrated else "")
        return score

    with Journal(events) as journal, progress:
        return list(await asyncio.gather(*(rating(session, repeat) for session, repeat in wanted)))


def _key(session: SessionRecord, repeat: int, rubric: Rubric, config: JudgingConfig) -> str:
    """What decides a rating: the dialogue, who rates it, by what, and how it is asked."""
    asked: dict[str, Any] = {
        "session": session.id,
        "turns": [(turn.role, turn.text) for turn in session.turns],
        "repeat": repeat,
        "rubric": rubric.model_dump(mode="json"),
        "judge": config.judge.model_dump(mode="json", exclude={"repeats"}),
        "model": [config.provider.base_url, config.provider.model, config.provider.extra_body],
    }
    return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()
