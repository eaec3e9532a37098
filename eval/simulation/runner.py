"""Hold all sessions of an evaluation, many at a time. Every turn is on disk before the next is asked for."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol

from cbtrain.errors import UserError
from cbtrain.eval.simulation.config import DEFAULT
from cbtrain.eval.simulation.dialogue import Limits, Speaker, SpeakerStopped, Spoken, hold_session
from cbtrain.eval.simulation.seeds import seed_from
from cbtrain.eval.simulation.simulators import SessionBegins
from cbtrain.eval.simulation.slots import slot_of
from cbtrain.eval.watching.display import Display
from cbtrain.files import text_digest
from cbtrain.journal import Journal
from cbtrain.stopping import StopRequest
from cbtrain.transcripts.types import FAILED, Ending, Turn

SUMMARY, NO_SUMMARY = "summary", "no_summary"
"""Kinds of the journal's records of a summary, and of one that could not be had."""

MARKS = {
    "thinking_removed": "thinking was taken out",
    "other_speaker_cut": "the patient also spoke for the therapist, which was cut",
    "speaks_for_patient": "the therapist also spoke for the patient, which was left in",
    "drift": "the patient fell out of its part, which was left in",
    "drift_first": "the patient fell out of its part and was asked once more",
    "end_too_early": "the patient wanted to end before evaluation.min_turns",
}
"""Facts of a turn that a reader should know, and the note on each."""


@dataclass(slots=True)
class SimulatedSession:
    """One session. ``ending`` is None until it has ended, then an Ending or the name that another program gave it.
    ``ids`` are the tokens of turns that a local model has written, by the turn's index: it reads them as it wrote them.
    ``marks`` counts the turns in which something was found or changed (:data:`MARKS`). ``labels_seen`` are the
    speakers' labels in the text of a transcript that was read without finding both speakers. ``key`` is a digest of
    all that decides what is said; ``keys`` are others, under which turns were said that still count. ``number``: of
    the session in its course, 0 if there is none; ``simulator``: who plays the patient, "" if there is one way only.
    ``columns`` are what the analysis forms subgroups by: severity, engagement, style and risk of the patient.
    ``begins``: what is known at its beginning, None for a session by itself. Sessions of one ``course`` are held one
    after the other: ``summary`` is what was written after it, ``after`` a digest of the summary that it was begun
    with."""

    id: str
    arm: str
    patient: str
    seed: int
    turns: list[Turn] = field(default_factory=list)
    ending: str | None = None
    error: str | None = None
    marks: Counter[str] = field(default_factory=Counter)
    labels_seen: str = ""
    ids: dict[int, tuple[int, ...]] = field(default_factory=dict)
    key: str = ""
    keys: frozenset[str] = frozenset()
    number: int = 0
    simulator: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    begins: SessionBegins | None = None
    course: str = ""
    summary: str = ""
    after: str = ""

    @property
    def slot(self) -> int:
        """The place among the sessions of this patient with this arm."""
        return slot_of(self.seed, self.number, self.simulator)

    @property
    def failed(self) -> bool:
        """Whether it ended for a reason that says nothing about the therapist."""
        return self.ending in FAILED


Speakers = Callable[[SimulatedSession], tuple[Speaker, Speaker]]
"""The patient and the therapist of a session."""

Summarize = Callable[[SimulatedSession, Speaker, Sequence[int]], Awaitable[Spoken]]
"""Writes the summary of a session with its therapist, or whoever does that, with one of these seeds. Raises
SpeakerStopped."""

MOST_ATTEMPTS = 100
"""Seeds that the writer of a summary is given."""


def plan_sessions(
    patients: Sequence[str],
    arms: Sequence[str],
    seeds: int,
    numbers: Sequence[int] = (0,),
    simulators: Sequence[str] = ("",),
) -> list[SimulatedSession]:
    """Return a session for every patient, seed, simulator, number and arm; the arms of one patient, seed, simulator and
    number are neighbours."""
    sessions = []
    for patient, seed, simulator, number, arm in product(patients, range(seeds), simulators, numbers, arms):
        more = [*([f"s{number}"] if number else []), *([simulator] if simulator not in ("", DEFAULT) else [])]
        id_ = ".".join([patient, arm, str(seed), *more])
        sessions.append(SimulatedSession(id_, arm, patient, seed, number=number, simulator=simulator))
    return sessions


def turn_seed(session: SimulatedSession, index: int, run_seed: int) -> int:
    """Return the seed of one turn: the same for every arm, so that arms differ by their weights alone."""
    number = f"|session {session.number}" if session.number else ""
    return seed_from(f"{run_seed}|{session.patient}|{session.seed}|{index}{number}")


def summary_seeds(session: SimulatedSession, run_seed: int) -> list[int]:
    """Return the seeds with which the summary of a session is asked for."""
    key = f"{run_seed}|{session.patient}|{session.seed}|{session.number}|summary"
    return [seed_from(f"{key}|{attempt}") for attempt in range(MOST_ATTEMPTS)]


def in_courses(sessions: Sequence[SimulatedSession]) -> list[list[SimulatedSession]]:
    """Return the sessions of each course in their order; one that belongs to none stands alone."""
    courses: dict[str, list[SimulatedSession]] = {}
    for session in sessions:
        courses.setdefault(session.course or f"/{session.id}", []).append(session)
    return [sorted(course, key=lambda session: session.number) for course in courses.values()]


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """``in_flight``: sessions at once in each lane, each of which ends at ``limits``. ``seed``: of the run. No session
    of an arm begins when more than ``max_failures`` (a share of that arm's) have failed. ``summarize``: between the
    sessions of a course."""

    in_flight: int
    limits: Limits
    seed: int
    max_failures: float = 1.0
    summarize: Summarize | None = None


class After(Protocol):
    """What is done once with each session that has ended and did not fail, while its speakers are there. It records by
    itself what it has done, and says by that which sessions lack it, also those of earlier processes."""

    def lacks(self, session: SimulatedSession) -> bool: ...

    async def __call__(self, session: SimulatedSession, patient: Speaker, therapist: Speaker) -> None: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Sessions whose speakers are opened together: those of one model on this machine, say."""

    sessions: Sequence[SimulatedSession]
    open: Callable[[], AbstractAsyncContextManager[Speakers]]


Lane = Iterable[Batch]
"""Batches that are held one after the other; lanes are side by side."""


def marks_of(facts: Mapping[str, Any]) -> list[str]:
    """Return the marks that the ``facts`` of a turn set."""
    return [name for name in MARKS if facts.get(name)]


def is_unfinished(session: SimulatedSession, after: Sequence[After]) -> bool:
    """Return whether there is something left to do with ``session``."""
    return session.ending is None or (not session.failed and any(step.lacks(session) for step in after))


async def run_sessions(
    sessions: Sequence[SimulatedSession],
    lanes: Sequence[Lane],
    journal: Journal,
    settings: SimulationSettings,
    display: Display | None = None,
    stop: StopRequest | None = None,
    after: Sequence[After] = (),
) -> None:
    """Bring every session in ``lanes`` to an ending; begun ones come first. One that breaks is recorded as
    ``internal_error`` and stops no other, unless there are too many; a UserError (answers that cannot be read, say) is
    no defect of one session and is raised. ``sessions`` are all of the plan. Then each of ``after`` is done, in order,
    with a session that lacks it; what breaks there is recorded as a defect, and the session stays as it ended.

    ``display`` shows how far they are. After ``stop`` no turn begins: raises Stopped once those under way are recorded.
    """
    simulation = _Simulation(sessions, journal, settings, stop or StopRequest(), after)
    arms = Counter(session.arm for session in sessions)
    journal.append("sessions_planned", arms=arms, max_turns=settings.limits.max_turns)
    async with display.shown() if display else nullcontext():
        await simulation.stop.together(map(simulation.hold_lane, lanes), simulation.finished)


class _Simulation:
    """All sessions of one simulation."""

    def __init__(
        self,
        sessions: Sequence[SimulatedSession],
        journal: Journal,
        settings: SimulationSettings,
        stop: StopRequest,
        after: Sequence[After],
    ) -> None:
        self.sessions, self.journal, self.settings, self.stop, self.after = sessions, journal, settings, stop, after
        self.by_arm: dict[str, list[SimulatedSession]] = {}
        for session in sessions:
            self.by_arm.setdefault(session.arm, []).append(session)

    async def hold_lane(self, lane: Lane) -> None:
        """Hold the batches of ``lane``. Speakers are opened only for a batch that has something left to do."""
        for batch in lane:
            courses = in_courses(batch.sessions)
            unfinished = [course for course in courses if any(is_unfinished(one, self.after) for one in course)]
            if unfinished:
                self.stop.refuse_new()
                await self._hold_batch(batch, unfinished)  # by itself: whoever spoke is not kept in memory

    async def _hold_batch(self, batch: Batch, courses: list[list[SimulatedSession]]) -> None:
        courses.sort(key=lambda course: not any(session.turns for session in course))  # what was begun comes first
        permits = asyncio.Semaphore(self.settings.in_flight)
        async with batch.open() as speakers:
            works = [self.hold_course(course, speakers, permits) for course in courses]
            await self.stop.together(works, self.finished)

    async def hold_course(
        self, course: Sequence[SimulatedSession], speakers: Speakers, permits: asyncio.Semaphore
    ) -> None:
        """Hold the sessions of one course in their order, each with the summary of those before. The course ends where
        one fails or no summary can be had."""
        for before, session in zip([None, *course], course, strict=False):
            if before is not None:
                if not before.summary and not await self._summarize(before, speakers, permits):
                    return
                session.begins = SessionBegins(session.number, before.summary)
                session.after = text_digest(before.summary)
            if is_unfinished(session, self.after):
                await self.hold(session, speakers, permits)
            if session.ending is None or session.failed:
                return

    async def _summarize(self, session: SimulatedSession, speakers: Speakers, permits: asyncio.Semaphore) -> bool:
        """Have the summary of ``session`` written; return whether there is one."""
        assert self.settings.summarize is not None
        async with AsyncExitStack() as permit:
            with self.stop.interruptible():
                await permit.enter_async_context(permits)
            self.stop.refuse_new()
            _, therapist = speakers(session)
            try:
                spoken = await self.settings.summarize(session, therapist, summary_seeds(session, self.settings.seed))
            except SpeakerStopped as stopped:
                facts: dict[str, Any] = {"ending": stopped.ending, "error": str(stopped), "facts": stopped.facts}
                await asyncio.to_thread(self.journal.append, NO_SUMMARY, session=session.id, **facts)
                session.error = f"no summary of it: {stopped}"
                return False
            except UserError:
                raise
            except Exception as error:  # a defect ends this course, and no other
                self.journal.append("defect", session=session.id, trace=traceback.format_exc())
                session.error = f"no summary of it: {type(error).__name__}: {error}"
                return False
            await asyncio.to_thread(
                self.journal.append, SUMMARY, session=session.id, text=spoken.text, facts=spoken.facts
            )
            session.summary = spoken.text
            return True

    def too_many_failed(self, arm: str) -> bool:
        """Return whether more sessions of ``arm`` have failed than the settings allow: it stops no other arm."""
        sessions = self.by_arm[arm]
        return sum(session.failed for session in sessions) > self.settings.max_failures * len(sessions)

    async def hold(self, session: SimulatedSession, speakers: Speakers, permits: asyncio.Semaphore) -> None:
        """Bring one session to an ending, as soon as there is a permit, unless too many have failed by then; and do
        what comes after it."""
        async with AsyncExitStack() as permit:
            with self.stop.interruptible():
                await permit.enter_async_context(permits)
            if session.ending is None:
                if self.too_many_failed(session.arm):
                    return
                await self._to_its_end(session, speakers)
            if not session.failed:
                await self._after(session, speakers)

    async def _to_its_end(self, session: SimulatedSession, speakers: Speakers) -> None:
        facts: dict[str, Any] = {
            "arm": session.arm,
            "patient": session.patient,
            "seed": session.seed,
            "key": session.key,
        }
        facts |= {"after": session.after} if session.after else {}
        self.journal.append("session_started", session=session.id, **facts)
        unsaid: dict[str, Any] = {}
        try:
            patient, therapist = speakers(session)
            session.ending, session.error = await self._dialogue(session, patient, therapist, unsaid)
        except UserError:
            raise
        except Exception as error:  # supervision: a defect in one session is its result, not the run's end
            session.ending, session.error = "internal_error", f"{type(error).__name__}: {error}"
            self.journal.append("defect", session=session.id, trace=traceback.format_exc())
        end: dict[str, Any] = {"ending": session.ending, "error": session.error}
        end |= {"facts": unsaid} if unsaid else {}
        self.journal.append("session_finished", session=session.id, **end)

    async def _after(self, session: SimulatedSession, speakers: Speakers) -> None:
        for step in self.after:
            if not step.lacks(session):
                continue
            self.stop.refuse_new()
            try:
                patient, therapist = speakers(session)
                await step(session, patient, therapist)
            except UserError:
                raise
            except Exception:  # as above: one session lacks it, and the others go on
                self.journal.append("defect", session=session.id, trace=traceback.format_exc())

    async def _dialogue(
        self, session: SimulatedSession, patient: Speaker, therapist: Speaker, unsaid: dict[str, Any]
    ) -> tuple[Ending, str | None]:
        async def record(index: int, turn: Turn, spoken: Spoken) -> None:
            fields: dict[str, Any] = {"session": session.id, "index": index, "role": turn.role, "text": turn.text}
            if spoken.ids:
                fields["ids"] = list(spoken.ids)
            await asyncio.to_thread(self.journal.append, "turn", **fields, facts=spoken.facts)
            session.ids[index] = spoken.ids
            session.marks.update(marks_of(spoken.facts))

        return await hold_session(
            patient,
            therapist,
            session.turns,
            self.settings.limits,
            seed=lambda index: turn_seed(session, index, self.settings.seed),
            record=record,
            refuse_new=self.stop.refuse_new,
            unsaid=unsaid.update,
        )

    def finished(self) -> str:
        """Return how many sessions have ended, in words."""
        return f"{sum(s.ending is not None for s in self.sessions)} of {len(self.sessions)} sessions finished"
