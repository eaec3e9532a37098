"""Simulated sessions of one evaluation: which are held, by whom, and how a run of them continues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

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
from cbtrain.eval.simulation.speakers import ApiPatient, LocalTherapist
from cbtrain.generation.local_model import LocalModel
from cbtrain.generation.server_process import server_process
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.provider import Provider
from cbtrain.providers.summary import status
from cbtrain.settings import differences
from cbtrain.study.evaluation.protocol import EvaluationProtocol
from cbtrain.study.evaluation.report_data import ARMS
from cbtrain.study.evaluation.run_context import BEGUN, PLAN, RunContext
from cbtrain.study.run_files import EVENTS
from cbtrain.study.trained_run import TrainedRun
from cbtrain.transcripts.profile import Profile


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
        begun = next((event["settings"] for event in run.events if event["kind"] == BEGUN), None)
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


async def simulate(plan: SimulationPlan, therapist: LocalModel, run: RunContext) -> None:
    """Hold the sessions of ``plan``: the therapist in this process, the patient behind an API (by default our own
    server). Raises UserError if no API can be asked or nothing can be recorded, Stopped after a signal."""
    begun = plan.resume(run)
    if plan.finished():
        return
    settings = run.config.evaluation
    limits = Limits(settings.max_turns, settings.max_words)
    patient_is_local = settings.patient_provider is None
    with half_the_threads():
        run.record("resumed" if begun else BEGUN, settings=plan.protocol.resume_key)
        async with _patient_api(plan, run) as patient_api, therapist:
            await run_sessions(
                plan.sessions,
                _speakers(plan, therapist, patient_api, run),
                run.journal,
                SimulationSettings(settings.sessions_in_flight, limits, run.config.seed),
                run.console,
                status=lambda share: "" if patient_is_local else status(run.providers, "patient", share),
                stop=run.stop,
            )
    _report_marks(plan, run)
    short = sum(session.ending == "budget" for session in plan.sessions)
    if short:
        run.say(f"note: the budget ended {short} sessions: raise providers.budget and evaluate again to continue")


@asynccontextmanager
async def _patient_api(plan: SimulationPlan, run: RunContext) -> AsyncIterator[Provider]:
    """Yield the API that plays the patients: the one in the settings, else a server of the patient adapter that runs as
    long as the body."""
    settings = run.config.evaluation
    if settings.patient_provider is not None:
        yield await run.providers.open(settings.patient_provider, "patient")
        return
    async with AsyncExitStack() as stack:
        with run.console.status("Starting the patient's server"):
            server = server_process(_server_arguments(plan, run), run.folder / "patient_server.log")
            with run.stop.interruptible():
                url = await stack.enter_async_context(server)
        run.say(f"the patients answer at {url} (POST /chat/completions)")
        many = max(32, settings.sessions_in_flight)
        config = ProviderConfig(base_url=url, model="patient", first_in_flight=many, max_in_flight=many)
        yield await run.providers.open(config, "patient", local=True)


def _speakers(
    plan: SimulationPlan, model: LocalModel, patient_api: Provider, run: RunContext
) -> Callable[[SimulatedSession], tuple[Speaker, Speaker]]:
    """Return the speakers of a session. Base and tuned therapist are one set of weights with the adapter off and on."""
    settings = run.config.evaluation
    instructions = settings.patient_instructions if settings.patient_provider else None
    system = plan.protocol.therapist_system
    therapists = {arm: LocalTherapist(model, settings.therapist, system, adapter=arm == "tuned") for arm in ARMS}

    def speakers(session: SimulatedSession) -> tuple[Speaker, Speaker]:
        profile, specials = plan.profiles[session.patient], model.renderer.specials
        patient = ApiPatient(patient_api, profile, settings.patient, instructions, forbidden=specials)
        return patient, therapists[session.arm]

    return speakers


def _report_marks(plan: SimulationPlan, run: RunContext) -> None:
    """Say what was found or changed in turns; the report flags the sessions."""
    for name, what in MARKS.items():
        turns = sum(session.marks[name] for session in plan.sessions)
        if turns:
            sessions = sum(bool(session.marks[name]) for session in plan.sessions)
            run.say(f"note: in {counted(turns, 'turn')} of {counted(sessions, 'session')} {what}")


@contextmanager
def half_the_threads() -> Iterator[None]:
    """Run the body with half of torch's threads: therapist and patient run in parallel."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _server_arguments(plan: SimulationPlan, run: RunContext) -> list[str]:
    config, engine = run.config, run.config.evaluation.engine
    threads = max(1, torch.get_num_threads())
    return [
        *("--model", plan.trained.base, "--adapter", str(run.folder / "patient"), "--name", "patient", "--port", "0"),
        *("--system", "none"),  # each request brings the patient's own
        *("--threads", str(threads), "--slots", str(engine.slots), "--context", str(engine.context_tokens)),
        *("--weights", config.model.weights, "--compute", config.model.compute),
        *("--attention", config.model.attention, "--device", config.model.device),
        *(() if config.model.double_quantization else ("--single-quantization",)),
    ]
