"""Have LLM judges rate all sessions, many at once. Each answer is on disk before the next is paid for."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cbtrain.eval.rating import transcript_form
from cbtrain.eval.rating.config import DEFAULT_PROMPT
from cbtrain.eval.rating.judge import Asking, judge_session
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score, is_score
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.watching.display import Display
from cbtrain.journal import Journal, Shape, is_text
from cbtrain.journal import read as read_journal
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.provider import Provider

SHAPES: dict[str, Shape] = {"rating": {"key": is_text, "score": is_score}}
"""The fields that ratings of earlier processes must have."""

LIMITS = ("max_tokens", "max_reasks")
"""Settings of a judge that change no answer that has a rating: raising them asks for the missing ratings only."""


@dataclass(frozen=True)
class JudgeWork:
    """The ``sessions`` that one judge rates. ``api``: where it is."""

    asking: Asking
    api: ProviderConfig
    sessions: Sequence[SimulatedSession]

    @cached_property
    def wanted(self) -> list[tuple[SimulatedSession, int, str | None]]:
        """Each rating that is wanted: session, repeat and key; no key if the session is never sent."""
        return [
            (session, repeat, None if why_unratable(session.turns) else self.key(session, repeat))
            for session in self.sessions
            for repeat in range(self.asking.config.repeats)
        ]

    @cached_property
    def _asked(self) -> dict[str, Any]:
        """What all its ratings depend on."""
        asking, domains = self.asking, self.asking.rubric.domains
        messages = asking.prompt.messages(asking.rubric, domains, "")
        return {
            "template": asking.prompt.digest,
            "prompt": [message.content for message in messages],
            "form": transcript_form.VERSION,
            "points": list(asking.rubric.points),
            "domains": asking.rubric.ids,
            "judge": asking.config.model_dump(mode="json", exclude={"repeats", "prompt", *LIMITS}),
            "model": self.api.identity(),
        }

    def key(self, session: SimulatedSession, repeat: int) -> str:
        """Return a digest of all that a rating depends on: the dialogue, the judge, the rubric, and how the judge is
        asked; not the judge's name."""
        turns = [(turn.role, turn.text) for turn in session.turns]
        return _digest({"session": session.id, "turns": turns, "repeat": repeat, **self._asked})

    def older_key(self, session: SimulatedSession, repeat: int) -> str:
        """Return the key that versions before the present form of transcripts gave the rating."""
        settings = self.asking.config.model_dump(mode="json", exclude={"repeats", "prompt"})
        return _digest(
            {
                "session": session.id,
                "turns": [(turn.role, turn.text) for turn in session.turns],
                "repeat": repeat,
                "rubric": self.asking.rubric.identity(),
                "judge": settings,
                "model": self.api.identity(),
            }
        )


def _digest(inputs: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Earlier:
    """Ratings of earlier processes: the usable ones by key, and for each key how many answers to a call (by the call's
    first domain) were of no use."""

    ratings: Mapping[str, Score]
    tries: Mapping[str, Counter[str]]

    @classmethod
    def of_journal(cls, journal: Journal) -> Earlier:
        """Return what ``journal`` says by now. Raises UserError if it is damaged."""
        return cls.read(list(read_journal(journal.path, SHAPES)))

    @classmethod
    def read(cls, events: Sequence[Mapping[str, Any]]) -> Earlier:
        """Return what ``events`` of a journal say. A rating that ended in an error, or for want of money, had no answer
        at all."""
        ratings: dict[str, Score] = {}
        tries: dict[str, Counter[str]] = defaultdict(Counter)
        for event in events:
            if event["kind"] != "rating":
                continue
            key, score = event["key"], event["score"]
            if score["status"] in ("ok", "unratable"):
                ratings[key] = Score(**score)
            elif score["status"] in ("invalid", "refused", "truncated"):
                tries[key][score.get("stopped_at") or next(iter(score["domains"]))] += 1
        return cls(ratings, tries)

    def of(self, work: JudgeWork) -> tuple[dict[str, Score], int]:
        """Return the ratings of ``work`` that are there, by today's keys, and how many of them were asked for in an
        older form of transcripts. Those count only where all of the work was rated so: forms are not mixed."""
        keyed = [(session, repeat, key) for session, repeat, key in work.wanted if key]
        found = {key: self.ratings[key] for _, _, key in keyed if key in self.ratings}
        if found or not self.ratings or not keyed or work.asking.prompt.where != DEFAULT_PROMPT:
            return found, 0
        older = {key: self.ratings.get(work.older_key(session, repeat)) for session, repeat, key in keyed}
        complete = {key: score for key, score in older.items() if score is not None}
        return (complete, len(complete)) if len(complete) == len(older) else ({}, 0)


def missing_ratings(work: JudgeWork, earlier: Earlier) -> int:
    """Return how many ratings of ``work`` are still to be asked for."""
    found, _ = earlier.of(work)
    return sum(key is not None and key not in found for _, _, key in work.wanted)


async def judge_sessions(
    works: Sequence[tuple[JudgeWork, Provider]], earlier: Earlier, journal: Journal, display: Display | None = None
) -> list[list[Score]]:
    """Return the ratings of each of ``works``, in the order of its sessions, as many of each as its judge repeats.

    A rating in ``earlier`` (of the journal) for the same dialogue, judge and rubric is not asked for again, unless it
    has no scores for want of a usable answer. ``display`` shows how far they are. After ``stop`` of a provider no
    request is sent: raises Stopped once the answers to earlier ones are recorded.
    """
    kept = [earlier.of(work)[0] for work, _ in works]
    wanted = [work.wanted for work, _ in works]
    planned = sum(key is not None for rows in wanted for *_, key in rows)
    held, done = sum(map(len, kept)), 0
    if held < planned:
        names = ", ".join(work.asking.judge for work, _ in works)
        journal.append("ratings_planned", ratings=planned, earlier=held, judge=names)

    async def rating(at: int, session: SimulatedSession, repeat: int, key: str | None) -> Score:
        """``key`` is None if the session cannot be rated. Older versions have sent such sessions, too, and kept what
        came back, which is not used."""
        nonlocal done
        (work, provider), score = works[at], kept[at].get(key) if key else None
        if score is None:
            tries = earlier.tries.get(key) if key else None
            score = await judge_session(provider, work.asking, session, repeat=repeat, tries=tries)
            if key:
                await asyncio.to_thread(journal.append, "rating", key=key, score=score.record())
        done += 1
        rubric: Rubric = work.asking.rubric
        return replace(score.placed_as(session), judge=work.asking.judge, keying=rubric.keying)

    async with display.shown() if display else nullcontext():
        total = sum(map(len, wanted))
        tasks = [rating(at, *row) for at, rows in enumerate(wanted) for row in rows]
        scores = await works[0][1].stop.together(tasks, lambda: f"{done} of {total} ratings done") if works else []
    rest = iter(scores)
    return [[next(rest) for _ in rows] for rows in wanted]
