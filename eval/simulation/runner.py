"""Hold all sessions of an evaluation, many at a time. Every turn is on disk before the next is asked for."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.simulation.dialogue import SILENT_PATIENT, Limits, Speaker, Spoken, hold_session
from cbtrain.eval.simulation.slots import slot_of
from cbtrain.eval.watching.display import Display
from cbtrain.journal import Check, Journal, Record, Shape, is_count, is_section, is_text, or_none
from cbtrain.stopping import StopRequest
from cbtrain.transcripts.types import FAILED, FAILURES, Ending, Turn


def _turn_fields(record: Record) -> Mapping[str, Check]:
    shape: dict[str, Check] = {
        "session": is_text,
        "index": is_count,
        "role": lambda value: value in ("patient", "therapist"),
        "text": is_text,
    }
    optional: dict[str, Check] = {"facts": is_section, "ids": _are_ids}  # older versions wrote none
    return shape | {name: check for name, check in optional.items() if name in record}


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_count, value))


def _start_fields(record: Record) -> Mapping[str, Check]:
    shape: dict[str, Check] = {"session": is_text}
    return shape | ({"key": is_text} if "key" in record else {})  # older versions wrote none


def _end_fields(record: Record) -> Mapping[str, Check]:
    shape: dict[str, Check] = {"session": is_text, "ending": is_text, "error": or_none(is_text)}
    return shape | ({"facts": is_section} if "facts" in record else {})  # of a last answer that became no turn


SHAPES: dict[str, Shape] = {
    "session_started": _start_fields,
    "turn": _turn_fields,
    "session_finished": _end_fields,
}
"""The fields that :func:`restore` needs of a journal's records."""

MARKS = {
    "thinking_removed": "thinking was taken out",
    "other_speaker_cut": "the patient also spoke for the therapist, which was cut",
    "speaks_for_patient": "the therapist also spoke for the patient, which was left in",
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
    ``columns`` are what the analysis forms subgroups by: severity, engagement, style and risk of the patient."""

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


def restore(sessions: Sequence[SimulatedSession], events: Sequence[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Fill ``sessions`` from a journal's ``events``: finished ones stay finished, begun ones continue where they
    stopped. A session that ended by a failure of the infrastructure continues after its last good turn.

    Turns that were said under another key than those of their session are passed over. Return how many there are, by
    session and key. Raises UserError if a turn is missing.
    """
    by_id = {session.id: session for session in sessions}
    keys: dict[str, str] = {}
    branched: set[str] = set()
    """Sessions in which a process has said other turns than those taken: its later ones answer these, and none of
    ours."""
    passed_over: dict[str, Counter[str]] = {}
    for event in events:
        if event["kind"] not in SHAPES or event["session"] not in by_id:
            continue
        session = by_id[event["session"]]
        if event["kind"] == "session_started":
            keys[session.id] = event.get("key", "")
            branched.discard(session.id)
            continue
        key = keys.get(session.id, "")
        if key != session.key and key not in session.keys:
            if event["kind"] == "turn":
                passed_over.setdefault(session.id, Counter())[key] += 1
        elif session.id in branched:
            continue
        elif event["kind"] == "session_finished":
            if not _to_resume(event):
                session.ending, session.error = event["ending"], event["error"]
        elif event["index"] == len(session.turns):
            session.turns.append(Turn(event["role"], event["text"]))
            session.ids[event["index"]] = tuple(event.get("ids", ()))
            session.marks.update(marks_of(event.get("facts", {})))
        elif event["index"] > len(session.turns):
            hint = "Restore the file from a copy."
            raise UserError(f"turn {len(session.turns) + 1} is missing", where=f"session {session.id}", hint=hint)
        elif session.turns[event["index"]].text != event["text"]:
            branched.add(session.id)
    return passed_over


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """``in_flight``: sessions at once in each lane, each of which ends at ``limits``. ``seed``: of the run. No session
    of an arm begins when more than ``max_failures`` (a share of that arm's) have failed."""

    in_flight: int
    limits: Limits
    seed: int
    max_failures: float = 1.0


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


def _to_resume(event: Mapping[str, Any]) -> bool:
    """Return whether a session that ended so is taken up again. Older versions called a patient's empty answer an
    ending, not a failure."""
    silent = (event["ending"], event.get("error")) == ("empty_turn", SILENT_PATIENT)
    return event["ending"] in FAILURES or silent


async def run_sessions(
    sessions: Sequence[SimulatedSession],
    lanes: Sequence[Lane],
    journal: Journal,
    settings: SimulationSettings,
    display: Display | None = None,
    stop: StopRequest | None = None,
) -> None:
    """Bring every session in ``lanes`` to an ending; begun ones come first. One that breaks is recorded as
    ``internal_error`` and stops no other, unless there are too many; a UserError (answers that cannot be read, say) is
    no defect of one session and is raised. ``sessions`` are all of the plan.

    ``display`` shows how far they are. After ``stop`` no turn begins: raises Stopped once those under way are recorded.
    """
    simulation = _Simulation(sessions, journal, settings, stop or StopRequest())
    arms = Counter(session.arm for session in sessions)
    journal.append("sessions_planned", arms=arms, max_turns=settings.limits.max_turns)
    async with display.shown() if display else nullcontext():
        await simulation.stop.together(map(simulation.hold_lane, lanes), simulation.finished)


class _Simulation:
    """All sessions of one simulation."""

    def __init__(
        self, sessions: Sequence[SimulatedSession], journal: Journal, settings: SimulationSettings, stop: StopRequest
    ) -> None:
        self.sessions, self.journal, self.settings, self.stop = sessions, journal, settings, stop
        self.by_arm: dict[str, list[SimulatedSession]] = {}
        for session in sessions:
            self.by_arm.setdefault(session.arm, []).append(session)

    async def hold_lane(self, lane: Lane) -> None:
        """Hold the batches of ``lane``. Speakers are opened only for a batch that has something left to do."""
        for batch in lane:
            unfinished = [session for session in batch.sessions if session.ending is None]
            if unfinished:
                self.stop.refuse_new()
                await self._hold_batch(batch, unfinished)  # by itself: whoever spoke is not kept in memory

    async def _hold_batch(self, batch: Batch, sessions: list[SimulatedSession]) -> None:
        sessions.sort(key=lambda session: not session.turns)  # what was begun is finished first
        permits = asyncio.Semaphore(self.settings.in_flight)
        async with batch.open() as speakers:
            works = [self.hold(session, speakers, permits) for session in sessions]
            await self.stop.together(works, self.finished)

    def too_many_failed(self, arm: str) -> bool:
        """Return whether more sessions of ``arm`` have failed than the settings allow: it stops no other arm."""
        sessions = self.by_arm[arm]
        return sum(session.failed for session in sessions) > self.settings.max_failures * len(sessions)

    async def hold(self, session: SimulatedSession, speakers: Speakers, permits: asyncio.Semaphore) -> None:
        """Bring one session to an ending, as soon as there is a permit, unless too many have failed by then."""
        async with AsyncExitStack() as permit:
            with self.stop.interruptible():
                await permit.enter_async_context(permits)
            if self.too_many_failed(session.arm):
                return
            facts: dict[str, Any] = {
                "arm": session.arm,
                "patient": session.patient,
                "seed": session.seed,
                "key": session.key,
            }
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
