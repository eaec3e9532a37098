"""Hold all sessions of an evaluation, many at a time, every turn on disk before the next is asked for."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from cbtrain.eval.simulation.dialogue import Speaker, Spoken, hold_session
from cbtrain.journal import Journal
from cbtrain.transcripts.types import FAILED, FAILURES, Turn

Done = TypeVar("Done")


@dataclass(slots=True)
class SimulatedSession:
    """One session; ``ending`` is None while it has not ended, and an Ending, or what another program calls it, after
    that."""

    id: str
    arm: str
    patient: str
    seed: int
    turns: list[Turn] = field(default_factory=list)
    ending: str | None = None
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended for a reason that says nothing about the therapist."""
        return self.ending in FAILED


Speakers = Callable[[SimulatedSession], tuple[Speaker, Speaker]]
"""The patient and the therapist of a session."""


def plan_sessions(patients: Sequence[str], arms: Sequence[str], seeds: int) -> list[SimulatedSession]:
    """Every patient with every arm and seed; the arms of one patient and seed stand side by side."""
    return [
        SimulatedSession(f"{patient}.{arm}.{seed}", arm, patient, seed)
        for patient in patients
        for seed in range(seeds)
        for arm in arms
    ]


def turn_seed(session: SimulatedSession, index: int, run_seed: int) -> int:
    """The seed of one turn: the same for every arm, so that arms differ by their weights alone."""
    key = f"{run_seed}|{session.patient}|{session.seed}|{index}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big")


def restore(sessions: Sequence[SimulatedSession], events: Sequence[dict[str, Any]]) -> None:
    """Fill ``sessions`` with what a journal holds: finished ones stay finished, begun ones go on where they stopped.

    A session that ended by a failure of the infrastructure is taken up again at its last good turn.
    """
    by_id = {session.id: session for session in sessions}
    for event in events:
        session = by_id.get(event.get("session", ""))
        if session is None:
            continue
        if event["kind"] == "turn" and event["index"] == len(session.turns):
            session.turns.append(Turn(event["role"], event["text"]))
        elif event["kind"] == "session_finished" and event["ending"] not in FAILURES:
            session.ending, session.error = event["ending"], event["error"]


async def run_sessions(
    sessions: Sequence[SimulatedSession],
    speakers: Speakers,
    journal: Journal,
    *,
    in_flight: int,
    max_turns: int,
    max_words: int,
    run_seed: int,
    console: Console,
    status: Callable[[float], str] = lambda share: "",
) -> None:
    """Bring every session to an ending. One that breaks is recorded as ``internal_error`` and stops no other.

    ``status`` says how things stand with the APIs, given the share of the turns that have been said.
    """
    gate = asyncio.Semaphore(in_flight)
    progress = session_progress(console)
    task = progress.add_task("simulate", total=len(sessions), line="")
    running = 0

    def show() -> None:
        turns, failed = sum(len(s.turns) for s in sessions), sum(s.failed for s in sessions)
        ended = [len(s.turns) for s in sessions if s.ending is not None and not s.failed]
        # Sessions that go on are thought to become as long as those that have ended.
        whole = len(sessions) * (sum(ended) / len(ended) if sum(ended) else max_turns)
        parts = [f"{running} in flight, {turns} turns", status(min(turns / whole, 1.0))]
        parts += [f"[red]{failed} failed[/]"] if failed else []
        line = ", ".join(filter(None, parts))
        progress.update(task, completed=sum(s.ending is not None for s in sessions), line=line)

    async def hold(session: SimulatedSession) -> None:
        nonlocal running
        async with gate:
            running += 1
            patient, therapist = speakers(session)

            async def record(index: int, turn: Turn, spoken: Spoken) -> None:
                fields: dict[str, Any] = {"session": session.id, "index": index, "role": turn.role, "text": turn.text}
                await asyncio.to_thread(journal.append, "turn", **fields, facts=spoken.facts)
                show()

            journal.append(
                "session_started", session=session.id, arm=session.arm, patient=session.patient, seed=session.seed
            )
            try:
                session.ending, session.error = await hold_session(
                    patient,
                    therapist,
                    session.turns,
                    seed=lambda index: turn_seed(session, index, run_seed),
                    max_turns=max_turns,
                    max_words=max_words,
                    record=record,
                )
            except Exception as error:  # supervision: a defect in one session is its result, not the run's end
                session.ending, session.error = "internal_error", f"{type(error).__name__}: {error}"
                journal.append("defect", session=session.id, trace=traceback.format_exc())
            journal.append("session_finished", session=session.id, ending=session.ending, error=session.error)
            running -= 1
            show()

    with progress:
        async with ticking(show):
            await together(hold(session) for session in sessions if session.ending is None)


async def together(works: Iterable[Coroutine[Any, Any, Done]]) -> list[Done]:
    """All results in order; where one work fails, the others are cancelled and have ended before it is told of."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


@asynccontextmanager
async def ticking(show: Callable[[], None], every_s: float = 1.0) -> AsyncIterator[None]:
    """Call ``show`` now and then: what is waited for changes without an event."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(every_s)
            show()

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def session_progress(console: Console) -> Progress:
    """A bar over sessions; its tasks have a ``line`` of their own."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("sessions  {task.fields[line]}"),
        TimeElapsedColumn(),
        console=console,
        refresh_per_second=4,
        disable=not console.is_terminal,
    )
