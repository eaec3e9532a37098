"""Simulated sessions of one evaluation: which are held, by whom, on which device, and in which order."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cbtrain.config.schema import StudyConfig
from cbtrain.environment import pick_device
from cbtrain.errors import UserError
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.api_speakers import ApiPatient, ApiTherapist
from cbtrain.eval.simulation.courses import Summarizer, Writer
from cbtrain.eval.simulation.dialogue import Limits, Speaker, Spoken
from cbtrain.eval.simulation.local_speakers import LocalPatient, LocalTherapist
from cbtrain.eval.simulation.parts import PatientRole
from cbtrain.eval.simulation.runner import (
    MARKS,
    After,
    Batch,
    Lane,
    SimulatedSession,
    SimulationSettings,
    Speakers,
    in_courses,
    is_unfinished,
    plan_sessions,
    run_sessions,
)
from cbtrain.providers.provider import Provider
from cbtrain.study.evaluation.protocol import EvaluationProtocol
from cbtrain.study.evaluation.run_context import RunContext
from cbtrain.study.evaluation.therapists import PATIENT, Therapist

if TYPE_CHECKING:
    from cbtrain.generation.local_model import LocalModel
    from cbtrain.model.weights.reading import Progress

THERAPIST_ROLE, PATIENT_ROLE, SUMMARY_ROLE = "therapist", "patient", "summaries"
"""Roles of requests in journal and costs."""


def sessions_of(protocol: EvaluationProtocol) -> list[SimulatedSession]:
    """Return every patient with every therapist, seed, simulator and session of the course. Raises UserError if two of
    them would have one name."""
    course, seeds = protocol.course, protocol.config.evaluation.seeds
    sessions = plan_sessions(
        list(protocol.patients), list(protocol.arms), seeds, course.numbers, list(protocol.players)
    )
    for session in sessions:
        session.begins = course.begins(session.patient, session.number)
        if session.patient in protocol.cases:
            session.columns = protocol.cases[session.patient].columns
        if course.mode == "whole":
            session.course = f"{session.patient}.{session.arm}.{session.seed}.{session.simulator}"
    ids = Counter(session.id for session in sessions)
    if doubled := next((name for name, count in ids.items() if count > 1), None):
        hint = "Leave dots out of the names of therapists."
        raise UserError(f"two sessions would be called {doubled!r}", where="evaluation.therapists", hint=hint)
    return sessions


@dataclass(eq=False)
class LocalGroup:
    """Therapists on one model folder, which share an engine and its batches; ``plays``: the patient does, too."""

    model: Path
    therapists: list[Therapist]
    plays: bool = False
    loaded: LocalModel | None = None
    """A model that is loaded already, for the first use."""

    def adapters(self, patient_adapter: Path | None) -> dict[str, Path]:
        """Return the folders of adapters by their name in the engine."""
        adapters = {
            therapist.name: therapist.weights.adapter
            for therapist in self.therapists
            if therapist.weights and therapist.weights.adapter
        }
        return adapters | ({PATIENT_NAME: patient_adapter} if self.plays and patient_adapter else {})


PATIENT_NAME, WRITER_NAME = f"/{PATIENT}", "/summaries"
"""The patient's adapter in an engine, and whoever writes summaries: no therapist can have such a name."""


def groups_of(protocol: EvaluationProtocol) -> list[LocalGroup]:
    """Return the therapists on this machine by their model folder, in the order of the plan."""
    player = protocol.patient_weights
    groups: dict[Path, LocalGroup] = {}
    for therapist in protocol.therapists:
        if therapist.weights:
            folder = therapist.weights.model.resolve()
            group = groups.setdefault(folder, LocalGroup(therapist.weights.model, []))
            group.therapists.append(therapist)
            group.plays = player is not None and player.model.resolve() == folder
    return list(groups.values())


@dataclass
class Simulation:
    """The sessions of one evaluation, and the models and APIs that speak in them. ``after``: what is done with each
    session that has ended."""

    protocol: EvaluationProtocol
    sessions: Sequence[SimulatedSession]
    run: RunContext
    groups: list[LocalGroup] = field(default_factory=list)
    after: Sequence[After] = ()

    def __post_init__(self) -> None:
        self.groups = self.groups or groups_of(self.protocol)
        self._apis: dict[str, Provider] = {}
        self._patient_model: LocalModel | None = None
        self._cut_summaries = 0

    async def hold(self) -> None:
        """Hold the sessions. Raises UserError if no API can be asked, a model cannot be loaded or nothing can be
        recorded, Stopped after a signal."""
        if not any(is_unfinished(session, self.after) for session in self.sessions):
            return
        run, settings = self.run, self.run.config.evaluation
        limits = Limits(settings.max_turns, settings.max_words, tuple(settings.end_phrases), settings.min_turns)
        async with AsyncExitStack() as stack:
            await self._open_apis()
            await self._open_patient(stack)
            options = SimulationSettings(
                settings.sessions_in_flight, limits, run.config.seed, settings.max_failures, self._summarize
            )
            await run_sessions(self.sessions, self._lanes(), run.journal, options, run.display, run.stop, self.after)
        self._report_marks()
        self._report_broken_courses()
        if self._cut_summaries:
            what = "1 summary was" if self._cut_summaries == 1 else f"{self._cut_summaries:,} summaries were"
            run.say(f"note: {what} cut at the longest length: raise evaluation.course.summary.max_tokens")
        short = sum(session.ending == "budget" for session in self.sessions)
        if short:
            run.say(f"note: the budget ended {short} sessions: raise providers.budget and evaluate again to continue")

    async def _open_apis(self) -> None:
        """Open every API that speaks, before the first session: what cannot be opened is found now."""
        for name, player in self.protocol.players.items():
            if player.provider is not None:
                role = " ".join(filter(None, [PATIENT_ROLE, name]))
                self._apis[f"{PATIENT_NAME}{name}"] = await self.run.providers.open(player.provider, role)
        writer = self.run.config.evaluation.course.summary.provider
        if writer is not None and self.protocol.course.mode == "whole":
            self._apis[WRITER_NAME] = await self.run.providers.open(writer, SUMMARY_ROLE)
        for therapist in self.protocol.therapists:
            if therapist.provider is not None:
                role = f"{THERAPIST_ROLE} {therapist.name}"  # by arm: each has its own model and its own costs
                self._apis[therapist.name] = await self.run.providers.open(therapist.provider, role)

    async def _open_patient(self, stack: AsyncExitStack) -> None:
        """Load the patient's model, if it is one on this machine that some therapists do not share."""
        weights = self.protocol.patient_weights
        behind_apis = any(therapist.provider for therapist in self.protocol.therapists)
        if weights is None or (all(group.plays for group in self.groups) and not behind_apis):
            return
        adapters = {PATIENT_NAME: weights.adapter} if weights.adapter else {}
        model = await self._load(weights.model, adapters, devices(self.run.config.model.device)[0])
        self._patient_model = await stack.enter_async_context(model)

    async def _load(self, folder: Path, adapters: Mapping[str, Path], device: str) -> LocalModel:
        more = f" with {counted(len(adapters), 'adapter')}" if adapters else ""
        self.run.say(f"loading {folder}{more}")
        return await asyncio.to_thread(load, folder, adapters, self.run.config, device, self.run.say)

    def _lanes(self) -> list[Lane]:
        """Return what is held side by side: on each device one model after the other, and all APIs at once."""
        waiting = deque(self.groups)
        here = devices(self.run.config.model.device) if waiting else []
        lanes: list[Lane] = [self._on_device(device, waiting) for device in here]
        apis = {therapist.name: therapist for therapist in self.protocol.therapists if therapist.provider}
        if apis:
            lanes.append([Batch(self._sessions_with(apis), partial(self._speakers, apis, None))])
        return lanes

    def _on_device(self, device: str, waiting: deque[LocalGroup]) -> Iterator[Batch]:
        """Yield the next model that waits whenever this device is free."""
        while waiting:
            group = waiting.popleft()
            therapists = {therapist.name: therapist for therapist in group.therapists}
            yield Batch(self._sessions_with(therapists), partial(self._with_model, group, therapists, device))

    def _sessions_with(self, therapists: Iterable[str]) -> list[SimulatedSession]:
        names = set(therapists)
        return [session for session in self.sessions if session.arm in names]

    @asynccontextmanager
    async def _with_model(
        self, group: LocalGroup, therapists: Mapping[str, Therapist], device: str
    ) -> AsyncIterator[Speakers]:
        """Load the model of ``group`` on ``device``, and yield its speakers. Its memory is free at the end."""
        player = self.protocol.patient_weights
        loaded, group.loaded = group.loaded, None
        if loaded is None:
            adapters = group.adapters(player.adapter if player else None)
            loaded = await self._load(group.model, adapters, device)
        async with loaded as model, self._speakers(therapists, model, group.plays) as speakers:
            yield speakers
        del loaded, model, speakers
        if device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    @asynccontextmanager
    async def _speakers(
        self, therapists: Mapping[str, Therapist], model: LocalModel | None, plays: bool = False
    ) -> AsyncIterator[Speakers]:
        """Yield the speakers of sessions with ``therapists``, who are behind APIs or on ``model``."""
        protocol = self.protocol
        patient_model = model if plays else self._patient_model

        def speakers(session: SimulatedSession) -> tuple[Speaker, Speaker]:
            arm, player = therapists[session.arm], protocol.players[session.simulator]
            system = protocol.therapist_prompt(arm, session)
            specials: Sequence[str] = ()
            if model is None:
                therapist: Speaker = ApiTherapist(self._apis[arm.name], arm.sampling, system)
            else:
                assert arm.weights is not None
                adapter, voice = (arm.name if arm.weights.adapter else None), voice_in(model, arm, therapists)
                specials = model.voice_of(voice).renderer.specials
                therapist = LocalTherapist(model, arm.sampling, system, adapter=adapter, voice=voice, ids=session.ids)
            part = PatientRole(
                protocol.patients[session.patient],
                forbidden=specials,
                last=player.last,
                prompt=protocol.patient_prompt(session),
                drift=player.drift,
                opening=protocol.opening(session),
            )
            if player.provider is not None:
                return ApiPatient(self._apis[f"{PATIENT_NAME}{session.simulator}"], part, player.sampling), therapist
            assert patient_model is not None
            assert player.weights is not None
            adapter = PATIENT_NAME if player.weights.adapter else None
            return LocalPatient(patient_model, part, player.sampling, adapter=adapter, ids=session.ids), therapist

        yield speakers

    async def _summarize(self, session: SimulatedSession, therapist: Speaker, seeds: Sequence[int]) -> Spoken:
        """Return the summary of ``session``. Raises SpeakerStopped."""
        writer = Summarizer(self.run.config.evaluation.course.summary, self._apis.get(WRITER_NAME))
        before = session.begins.summary if session.begins else ""
        spoken = await writer.summary_of(session.turns, before, cast(Writer, therapist), seeds)
        self._cut_summaries += bool(spoken.facts.get("cut"))
        return spoken

    def _report_broken_courses(self) -> None:
        """Say which courses ended early, and why."""
        broken = [
            course
            for course in in_courses(self.sessions)
            if len(course) > 1 and any(session.ending is None for session in course)
        ]
        if broken:
            last = next(session for session in reversed(broken[0]) if session.turns or session.ending or session.error)
            why = f"{last.id}: {last.error or last.ending}" if last else ""
            self.run.say(f"note: {counted(len(broken), 'course')} ended early, the first after {why}")

    def _report_marks(self) -> None:
        """Say what was found or changed in turns; the report flags the sessions."""
        for name, what in MARKS.items():
            turns = sum(session.marks[name] for session in self.sessions)
            if turns:
                sessions = sum(bool(session.marks[name]) for session in self.sessions)
                self.run.say(f"note: in {counted(turns, 'turn')} of {counted(sessions, 'session')} {what}")


def devices(wanted: str) -> list[str]:
    """Return the devices on which models are loaded: all GPUs, if no single device is ``wanted``."""
    chosen = pick_device(wanted)
    if wanted == "auto" and chosen.startswith("cuda"):
        import torch

        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [chosen]


def load(
    folder: Path,
    adapters: Mapping[str, Path],
    config: StudyConfig,
    device: str,
    say: Callable[[str], None],
    progress: Progress = lambda done, of: None,
) -> LocalModel:
    """Return the model in ``folder`` with ``adapters``, on ``device``. Raises UserError."""
    from cbtrain.study.local_model import open_local_model

    loading = config.model.model_copy(update={"device": device})
    model, note = open_local_model(str(folder), adapters, config, loading=loading, progress=progress)
    if note:
        say(note)
    return model


def voice_in(model: LocalModel, therapist: Therapist, therapists: Mapping[str, Therapist]) -> str | None:
    """Return the name of the voice in ``model`` with which ``therapist`` is talked to."""
    assert therapist.weights is not None
    if therapist.weights.adapter:
        return therapist.name
    layout_of = therapist.weights.layout_of
    return next(
        (
            other.name
            for other in therapists.values()
            if layout_of and other.weights and other.weights.adapter == layout_of
        ),
        None,
    )
