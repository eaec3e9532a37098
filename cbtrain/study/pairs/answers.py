"""A model's own answers to prompts. Each is on disk before the next is asked for; a killed process continues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cbtrain.errors import UserError
from cbtrain.eval.simulation.dialogue import Speaker, SpeakerStopped
from cbtrain.eval.simulation.seeds import seed_from
from cbtrain.journal import Journal, Shape, is_section, is_text, read
from cbtrain.providers.costs import ledger
from cbtrain.providers.providers import Providers
from cbtrain.stopping import StopRequest
from cbtrain.study.pairs.answerer import Answerer
from cbtrain.study.pairs.prompts import Prompt

STARTED, ANSWER = "started", "answer"
"""Kinds of the journal's records: who gives the answers of one side, with which seed; and one answer."""

Side = Literal["chosen", "rejected"]

SHAPES: dict[str, Shape] = {
    STARTED: {"side": is_text, "settings": is_section},
    ANSWER: {"side": is_text, "key": is_text, "text": is_text, "problem": is_text, "facts": is_section},
    **ledger.SHAPES,
}

FOR_GOOD = ("context_limit", "content_filter")
"""Ends that come again however often a prompt is asked."""

NOT_KEPT = "context_limit"
"""The one that another setting (the engine's context) may change: it is found anew, which costs nothing."""

KEPT = ("finish_reason", "completion_tokens", "seed", "model", "thinking_removed", "speaks_for_patient")
"""Facts of an answer that are recorded."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``problem``: the :data:`FOR_GOOD` reason why there is no text, "" if there is one."""

    text: str
    problem: str
    facts: Mapping[str, Any]

    @property
    def cut(self) -> bool:
        """Whether it ended at the longest length."""
        return self.facts.get("finish_reason") == "length"


def answers_beside(path: Path) -> Path:
    """Return the journal of the answers that go into the pairs of ``path``. No reader takes it for a corpus."""
    return path.with_name(f"{path.name}.answers")


async def answer_prompts(
    prompts: Sequence[Prompt], answerer: Answerer, side: Side, journal_path: Path, console: Console
) -> tuple[dict[str, Answer], list[str]]:
    """Return the answers to ``prompts`` by their keys, and why each of the others has none that may be had later.
    Answers of this ``side`` in the journal are not asked for again. Raises UserError if those are of another answerer,
    or if nothing can be asked; Stopped after a signal."""
    settings = {"answerer": answerer.identity, "seed": answerer.config.seed}
    providers_config = answerer.config.providers

    def warn(text: str) -> None:
        console.print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)

    with StopRequest(providers_config.stop_wait_s, warn) as stop, Journal(journal_path) as journal:
        events = list(read(journal_path, SHAPES))
        answers = _earlier(journal, [event for event in events if event.get("side") == side], side, settings)
        missing = [prompt for prompt in prompts if prompt.key not in answers]
        if not missing:
            return answers, []
        async with AsyncExitStack() as stack:
            providers = None
            if answerer.provider is not None:
                api = Providers(providers_config, events=journal, earlier_events=events, stop=stop, warn=warn)
                providers = await stack.enter_async_context(api)
            speaker = await answerer.open(stack, providers, console)
            with _bar(side, console) as bar:
                task = bar.add_task("", total=len(prompts), completed=len(prompts) - len(missing))
                permits = asyncio.Semaphore(answerer.config.evaluation.sessions_in_flight)
                asking = _Asking(answerer.config.seed, side, speaker, journal, stop, permits, lambda: bar.advance(task))
                works = [asking.answer(prompt) for prompt in missing]
                done = await stop.together(works, lambda: f"{bar.tasks[0].completed:,.0f} of {len(prompts):,} answers")
    answers |= {prompt.key: answer for prompt, answer in zip(missing, done, strict=True) if isinstance(answer, Answer)}
    return answers, [why for why in done if isinstance(why, str)]


def _bar(side: Side, console: Console) -> Progress:
    columns = (TextColumn(f"Answers to be {side}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _earlier(
    journal: Journal, events: Sequence[Mapping[str, Any]], side: Side, settings: dict[str, Any]
) -> dict[str, Answer]:
    """Return the answers of earlier processes, by the ``events`` of one side. Raises UserError if others gave them."""
    begun = next((event["settings"] for event in events if event["kind"] == STARTED), None)
    if begun is None:
        journal.append(STARTED, side=side, settings=settings)
    elif begun != settings:
        changed = next((name for name in settings if begun.get(name) != settings[name]), "settings")
        problem = f"it holds {side} answers with another {changed} (model, prompt format, sampling or seed)"
        raise UserError(problem, where=journal.path, hint="Repeat the settings, or choose another --out.")
    return {
        event["key"]: Answer(event["text"], event["problem"], event["facts"])
        for event in events
        if event["kind"] == ANSWER
    }


@dataclass(frozen=True, slots=True)
class _Asking:
    seed: int
    side: Side
    speaker: Callable[[str], Speaker]
    journal: Journal
    stop: StopRequest
    permits: asyncio.Semaphore
    advance: Callable[[], None]

    async def answer(self, prompt: Prompt) -> Answer | str:
        """Return the answer to ``prompt``, recorded; or why there is none now. Raises Stopped if it was not asked."""
        async with AsyncExitStack() as permit:
            with self.stop.interruptible():
                await permit.enter_async_context(self.permits)
            self.stop.refuse_new()
            return await self._ask(prompt)

    async def _ask(self, prompt: Prompt) -> Answer | str:
        seed = seed_from(f"{self.seed}|{prompt.key}")
        try:
            spoken = await self.speaker(prompt.system).speak(prompt.turns, seed)
            facts = {name: spoken.facts[name] for name in KEPT if name in spoken.facts}
            answer = Answer(spoken.text.strip(), "", facts)
        except SpeakerStopped as stopped:
            if stopped.ending not in FOR_GOOD:
                return str(stopped)
            answer = Answer("", stopped.ending, {})
            if stopped.ending == NOT_KEPT:
                self.advance()
                return answer
        await asyncio.to_thread(
            self.journal.append,
            ANSWER,
            side=self.side,
            key=prompt.key,
            text=answer.text,
            problem=answer.problem,
            facts=dict(answer.facts),
        )
        self.advance()
        return answer
