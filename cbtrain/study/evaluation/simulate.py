"""Simulated sessions of one evaluation: which are held, by whom, and how a run of them continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.dialogue import Limits, Speaker
from cbtrain.eval.simulation.runner import (
    MARKS,
    SimulatedSession,
    SimulationSettings,
    plan_sessions,
    restore,
    run_sessions,
)
from cbtrain.eval.simulation.speakers import ApiPatient, LocalPatient, LocalTherapist
from cbtrain.generation.local_model import LocalModel
from cbtrain.providers.provider import Provider
from cbtrain.providers.summary import status
from cbtrain.settings import differences
from cbtrain.study.evaluation.protocol import EvaluationProtocol, as_always
from cbtrain.study.evaluation.report_data import ARMS
from cbtrain.study.evaluation.run_context import BEGUN, PLAN, RunContext
from cbtrain.study.run_files import EVENTS
from cbtrain.study.trained_run import TrainedRun
from cbtrain.transcripts.profile import Profile

THERAPIST, PATIENT = "therapist", "patient"
"""The adapters of a run: folders in it, and names in the engine."""


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """Every held-out patient of ``protocol`` with every arm and seed."""

    trained: TrainedRun
    protocol: EvaluationProtocol
    sessions: list[SimulatedSession]

    @classmethod
    def of(cls, trained: TrainedRun, protocol: EvaluationProtocol) -> SimulationPlan:
        seeds = protocol.config.evaluation.seeds
        return cls(trained, protocol, plan_sessions(list(protocol.patients), list(ARMS), seeds))

    @property
    def profiles(self) -> Mapping[str, Profile | None]:
        return self.protocol.patients

    def journal(self, run: RunContext) -> None:
        """Write the protocol to the journal before the first session."""
        if not any(event["kind"] in (PLAN, BEGUN) for event in run.events):
            run.record(PLAN, protocol=self.protocol.compare_key)

    def resume(self, run: RunContext) -> bool:
        """Restore the sessions of earlier processes; return whether there were any. Raises UserError if these had
        another protocol."""
        protocol = self.protocol.resume_key
        begun = next((as_always(event["settings"]) for event in run.events if event["kind"] == BEGUN), None)
        if begun and (raised := _raised_limit(begun, protocol)):
            run.say(f"note: {raised}; turns said before keep the old limit, and the report names the change")
            begun = protocol
        if begun not in (None, protocol):
            hint = f"Set it back, or remove {EVENTS} to simulate again."
            key, _, _ = differences(protocol, begun)[0]
            what = f"{key} differs from the settings of the sessions in this folder"
            raise UserError(what, where=run.folder, hint=hint)
        restore(self.sessions, run.events)
        if begun:
            kept = sum(session.ending is not None for session in self.sessions)
            run.say(f"resuming: {kept} of {len(self.sessions)} sessions are finished")
        return bool(begun)

    def finished(self) -> bool:
        return all(session.ending for session in self.sessions)


def _raised_limit(begun: dict[str, Any], protocol: dict[str, Any]) -> str:
    """Return that the limit of a patient's turn was raised since the first session, if nothing else was changed; else
    nothing. Otherwise a patient that spends all its tokens on thinking could not be mended without losing the run."""
    before, now = begun.get("evaluation", {}), protocol["evaluation"]
    old, new = before.get("patient") or {}, now["patient"]
    if not old.get("max_tokens", new["max_tokens"]) < new["max_tokens"]:
        return ""
    same = begun | {"evaluation": before | {"patient": old | {"max_tokens": new["max_tokens"]}}}
    change = f"evaluation.patient.max_tokens is {new['max_tokens']:,} now, and was {old['max_tokens']:,}"
    return change if same == protocol else ""


async def simulate(plan: SimulationPlan, model: LocalModel, run: RunContext) -> None:
    """Hold the sessions of ``plan``: the therapists are ``model`` with and without its adapter, the patient is another
    adapter of it, or behind an API if the settings name one. Raises UserError if no API can be asked or nothing can be
    recorded, Stopped after a signal."""
    begun = plan.resume(run)
    if plan.finished():
        return
    settings = run.config.evaluation
    limits = Limits(settings.max_turns, settings.max_words)
    run.record("resumed" if begun else BEGUN, settings=plan.protocol.resume_key)
    async with AsyncExitStack() as stack:
        patient_api = None
        if settings.patient_provider is not None:
            patient_api = await run.providers.open(settings.patient_provider, "patient")
        await stack.enter_async_context(model)
        await run_sessions(
            plan.sessions,
            _speakers(plan, model, patient_api, run),
            run.journal,
            SimulationSettings(settings.sessions_in_flight, limits, run.config.seed),
            run.console,
            status=lambda share: status(run.providers, "patient", share) if patient_api else "",
            stop=run.stop,
        )
    _report_marks(plan, run)
    short = sum(session.ending == "budget" for session in plan.sessions)
    if short:
        run.say(f"note: the budget ended {short} sessions: raise providers.budget and evaluate again to continue")


def _speakers(
    plan: SimulationPlan, model: LocalModel, patient_api: Provider | None, run: RunContext
) -> Callable[[SimulatedSession], tuple[Speaker, Speaker]]:
    """Return the speakers of a session. Base, tuned therapist and a patient on this machine are one set of weights,
    with no adapter or one of two."""
    settings, system = run.config.evaluation, plan.protocol.therapist_system
    specials = model.voices[THERAPIST].renderer.specials

    def speakers(session: SimulatedSession) -> tuple[Speaker, Speaker]:
        profile, adapter = plan.profiles[session.patient], THERAPIST if session.arm == "tuned" else None
        therapist = LocalTherapist(model, settings.therapist, system, adapter=adapter, voice=THERAPIST, ids=session.ids)
        if patient_api is None:
            patient: Speaker = LocalPatient(
                model, profile, settings.patient, adapter=PATIENT, ids=session.ids, forbidden=specials
            )
        else:
            instructions = settings.patient_instructions
            patient = ApiPatient(patient_api, profile, settings.patient, instructions, forbidden=specials)
        return patient, therapist

    return speakers


def _report_marks(plan: SimulationPlan, run: RunContext) -> None:
    """Say what was found or changed in turns; the report flags the sessions."""
    for name, what in MARKS.items():
        turns = sum(session.marks[name] for session in plan.sessions)
        if turns:
            sessions = sum(bool(session.marks[name]) for session in plan.sessions)
            run.say(f"note: in {counted(turns, 'turn')} of {counted(sessions, 'session')} {what}")
