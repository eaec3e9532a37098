"""Hold all sessions of an evaluation, many at a time. Every turn is on disk before the next is asked for."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from cbtrain.eval.simulation.dialogue import SILENT_PATIENT, Speaker, Spoken, hold_session
from cbtrain.journal import Journal
from cbtrain.transcripts.types import FAILED, FAILURES, Ending, Turn

Done = TypeVar("Done")

MARKS = {
    "thinking_removed": "thinking was taken out",
    "other_speaker_cut": "the patient also spoke for the therapist, which was cut",
    "speaks_for_patient": "the therapist also spoke for the patient, which was left in",
}
"""What the facts of a turn tell that a reader should know, and what is said of it."""


@dataclass(slots=True)
class SimulatedSession:
    """One session. ``ending`` is None until it has ended, then an Ending or the name that another program gave it.
    ``marks`` counts the turns in which something was found or changed (:data:`MARKS`). ``labels_seen`` are the
    speakers' labels in the text of a transcript that was read without finding both speakers."""

    id: str
    arm: str
    patient: str
    seed: int
    turns: list[Turn] = field(default_factory=list)
    ending: str | None = None
    error: str | None = None
    marks: Counter[str] = field(default_factory=Counter)
    labels_seen: str = ""

    @property
    def failed(self) -> bool:
        """Whether it ended for a reason that says nothing about the therapist."""
        return self.ending in FAILED


Speakers = Callable[[SimulatedSession], tuple[Speaker, Speaker]]
"""The patient and the therapist of a session."""


def plan_sessions(patients: Sequence[str], arms: Sequence[str], seeds: int) -> list[SimulatedSession]:
    """Return a session for every patient, seed and arm; the arms of one patient and seed are neighbours."""
    return [
        SimulatedSession(f"{patient}.{arm}.{seed}", arm, patient, seed)
        for patient in patients
        for seed in range(seeds)
        for arm in arms
    ]


def turn_seed(session: SimulatedSession, index: int, run_seed: int) -> int:
    """Return the seed of one turn: the same for every arm, so that arms differ by their weights alone."""
    key = f"{run_seed}|{session.patient}|{session.seed}|{index}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big")


def restore(sessions: Sequence[SimulatedSession], events: Sequence[dict[str, Any]]) -> None:
    """Fill ``sessions`` from a journal's ``events``: finished ones stay finished, begun ones continue where they
    stopped. A session that ended by a failure of the infrastructure continues after its last good turn."""
    by_id = {session.id: session for session in sessions}
    for event in events:
        session = by_id.get(event.get("session", ""))
        if session is None:
            continue
        if event["kind"] == "turn" and event["index"] == len(session.turns):
            session.turns.append(Turn(event["role"], event["text"]))
            session.marks.update(marks_of(event.get("facts", {})))
        elif event["kind"] == "session_finished" and not _to_resume(event):
            session.ending, session.error = event["ending"], event["error"]


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """``in_flight``: sessions at once. A session ends after ``max_turns`` turns or ``max_words`` words. ``seed``: of
    the run."""

    in_flight: int
    max_turns: int
    max_words: int
    seed: int


def marks_of(facts: Mapping[str, Any]) -> list[str]:
    """Return the marks that the ``facts`` of a turn set."""
    return [name for name in MARKS if facts.get(name)]


def _to_resume(event: Mapping[str, Any]) -> bool:
    """Return whether a session that ended so is taken up again. Older versions called a patient's empty answer an
    ending, not a failure."""
    silent = (event["ending"], event.get("error")) == ("empty_turn", SILENT_PATIENT)
    return event["ending"] in FAILURES or silent


async def run_sessions(
    sessions: Sequence[SimulatedSession],
    speakers: Speakers,
    journal: Journal,
    settings: SimulationSettings,
    console: Console,
    status: Callable[[float], str] = lambda share: "",
) -> None:
    """Bring every session to an ending. One that breaks is recorded as ``internal_error`` and stops no other.

    ``status(share)`` describes the state of the APIs, given the share of all turns that have been said.
    """
    simulation = _Simulation(sessions, speakers, journal, settings, console, status)
    with simulation.progress:
        async with ticking(simulation.show):
            await together(simulation.hold(session) for session in sessions if session.ending is None)


class _Simulation:
    """All sessions of one simulation, with a progress bar."""

    def __init__(
        self,
        sessions: Sequence[SimulatedSession],
        speakers: Speakers,
        journal: Journal,
        settings: SimulationSettings,
        console: Console,
        status: Callable[[float], str],
    ) -> None:
        self.sessions, self.speakers, self.journal, self.settings = sessions, speakers, journal, settings
        self.status, self.running, self.permits = status, 0, asyncio.Semaphore(settings.in_flight)
        self.progress = session_progress(console)
        self.bar = self.progress.add_task("simulate", total=len(sessions), line="")

    async def hold(self, session: SimulatedSession) -> None:
        """Bring one session to an ending, as soon as fewer than ``in_flight`` are running."""
        async with self.permits:
            self.running += 1
            patient, therapist = self.speakers(session)
            self.journal.append(
                "session_started", session=session.id, arm=session.arm, patient=session.patient, seed=session.seed
            )
            try:
                session.ending, session.error = await self._dialogue(session, patient, therapist)
            except Exception as error:  # supervision: a defect in one session is its result, not the run's end
                session.ending, session.error = "internal_error", f"{type(error).__name__}: {error}"
                self.journal.append("defect", session=session.id, trace=traceback.format_exc())
            self.journal.append("session_finished", session=session.id, ending=session.ending, error=session.error)
            self.running -= 1
            self.show()

    async def _dialogue(
        self, session: SimulatedSession, patient: Speaker, therapist: Speaker
    ) -> tuple[Ending, str | None]:
        async def record(index: int, turn: Turn, spoken: Spoken) -> None:
            fields: dict[str, Any] = {"session": session.id, "index": index, "role": turn.role, "text": turn.text}
            await asyncio.to_thread(self.journal.append, "turn", **fields, facts=spoken.facts)
            session.marks.update(marks_of(spoken.facts))
            self.show()

        return await hold_session(
            patient,
            therapist,
            session.turns,
            seed=lambda index: turn_seed(session, index, self.settings.seed),
            max_turns=self.settings.max_turns,
            max_words=self.settings.max_words,
            record=record,
        )

    def show(self) -> None:
        """Bring the progress bar up to date."""
        turns, failed = sum(len(s.turns) for s in self.sessions), sum(s.failed for s in self.sessions)
        ended_lengths = [len(s.turns) for s in self.sessions if s.ending is not None and not s.failed]
        # Sessions that have not ended are expected to become as long as those that have.
        length = sum(ended_lengths) / len(ended_lengths) if sum(ended_lengths) else self.settings.max_turns
        share = min(turns / (len(self.sessions) * length), 1.0)
        parts = [f"{self.running} in flight, {turns} turns", self.status(share)]
        parts += [f"[red]{failed} failed[/]"] if failed else []
        line = ", ".join(filter(None, parts))
        self.progress.update(self.bar, completed=sum(s.ending is not None for s in self.sessions), line=line)


async def together(works: Iterable[Coroutine[Any, Any, Done]]) -> list[Done]:
    """Return all results in order. If one fails, cancel the others and raise its error when they have ended."""
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
    """Call ``show`` every ``every_s`` seconds while the body runs: waiting times change without an event."""

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
    """Return a progress bar over sessions; its tasks have a text in the field ``line``."""
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
