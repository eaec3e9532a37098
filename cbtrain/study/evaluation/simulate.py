"""Simulated sessions of one evaluation: who plays whom, what a run of them holds to, and where they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.errors import UserError
from cbtrain.eval.simulation.dialogue import Speaker
from cbtrain.eval.simulation.runner import SimulatedSession, restore, run_sessions
from cbtrain.eval.simulation.speakers import ApiPatient, LocalTherapist
from cbtrain.generation.local_model import LocalModel
from cbtrain.generation.server_process import server_process
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.summary import status
from cbtrain.study.evaluation.protocol import differing, weights_digest
from cbtrain.study.evaluation.report_data import ARMS
from cbtrain.study.evaluation.run_context import RunContext
from cbtrain.study.run_files import EVENTS
from cbtrain.tokens.formats import saved_format
from cbtrain.transcripts.profile import Profile


def _protocol(config: StudyConfig, folder: Path, patients: Mapping[str, Profile | None]) -> dict[str, Any]:
    """Everything that decides what is said in a session: one run of sessions holds to one protocol."""
    patient = config.evaluation.patient_provider
    settings = config.evaluation.model_dump(
        mode="json", exclude={"judging", "sessions_in_flight", "perplexity_tokens", "patient_provider"}
    )
    layout = saved_format(folder / "therapist")
    known = [profile.model_dump_json() if profile else name for name, profile in patients.items()]
    return {
        "evaluation": settings | {"patient_provider": patient.identity() if patient else None},
        "seed": config.seed,
        "tokens.therapist_system": config.tokens.therapist_system,
        **{f"model.{key}": getattr(config.model, key) for key in ("weights", "double_quantization", "compute")},
        "the adapter": weights_digest(folder / "therapist"),
        **({"the chat format": layout.template} if layout else {}),
        "the patients' profiles": blake2b("\n".join(known).encode(), digest_size=8).hexdigest(),
    }


async def simulate(
    sessions: Sequence[SimulatedSession],
    model: LocalModel,
    model_path: str,
    profiles: Mapping[str, Profile | None],
    config: StudyConfig,
    folder: Path,
    run: RunContext,
    console: Console,
) -> None:
    """Hold ``sessions``: the therapist in this process, the patient behind an API (by default our own server)."""
    settings = config.evaluation
    protocol = _protocol(config, folder, {session.patient: profiles[session.patient] for session in sessions})
    begun = next((event["settings"] for event in run.past if event["kind"] == "run_started"), None)
    if begun not in (None, protocol):
        hint = f"Set it back, or remove {EVENTS} to simulate anew."
        raise UserError(
            f"{differing(protocol, begun)[0]} differs from the sessions begun here", where=folder, hint=hint
        )
    restore(sessions, run.past)
    if begun:
        kept = sum(session.ending is not None for session in sessions)
        say(console, f"resuming: {kept} of {len(sessions)} sessions are finished")
    if all(session.ending for session in sessions):
        return
    async with AsyncExitStack() as stack:
        stack.enter_context(half_the_threads())
        run.journal.append("resumed" if begun else "run_started", settings=protocol)
        provider_config = settings.patient_provider
        instructions: str | None = settings.patient_instructions
        if provider_config is None:
            instructions = None
            with console.status("Starting the patient's server"):
                url = await stack.enter_async_context(
                    server_process(_server_arguments(model_path, folder, config), folder / "patient_server.log")
                )
            say(console, f"the patients answer at {url} (POST /chat/completions)")
            many = max(32, settings.sessions_in_flight)
            provider_config = ProviderConfig(base_url=url, model="patient", first_in_flight=many, max_in_flight=many)
        own = settings.patient_provider is None
        provider = await run.providers.open(provider_config, "patient", own=own)
        await stack.enter_async_context(model)
        therapists = {
            arm: LocalTherapist(model, settings.therapist, config.tokens.therapist_system, adapter=arm == "tuned")
            for arm in ARMS
        }

        def speakers(session: SimulatedSession) -> tuple[Speaker, Speaker]:
            profile = profiles[session.patient]
            patient = ApiPatient(provider, profile, settings.patient, instructions, forbidden=model.renderer.specials)
            return patient, therapists[session.arm]

        await run_sessions(
            sessions,
            speakers,
            run.journal,
            in_flight=settings.sessions_in_flight,
            max_turns=settings.max_turns,
            max_words=settings.max_words,
            run_seed=config.seed,
            console=console,
            status=lambda share: "" if own else status(run.providers, "patient", share),
        )
    short = sum(session.ending == "budget" for session in sessions)
    if short:
        say(console, f"note: the budget ended {short} sessions: raise providers.budget and evaluate again to go on")
    if sessions and all(session.ending in ("provider_error", "budget") for session in sessions):
        hint = "Nothing is lost: mend this and run `cbtrain evaluate` on the same run folder."
        where = "providers.budget" if short else provider_config.base_url
        raise UserError(f"every session failed: {sessions[0].error}", where=where, hint=hint)


@contextmanager
def half_the_threads() -> Iterator[None]:
    """Inside, torch computes on half of its threads: therapist and patient run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _server_arguments(model_path: str, folder: Path, config: StudyConfig) -> list[str]:
    engine = config.evaluation.engine
    threads = max(1, torch.get_num_threads())
    return [
        *("--model", model_path, "--adapter", str(folder / "patient"), "--name", "patient", "--port", "0"),
        *("--threads", str(threads), "--slots", str(engine.slots), "--context", str(engine.context_tokens)),
        *("--weights", config.model.weights, "--compute", config.model.compute),
        *("--attention", config.model.attention, "--device", config.model.device),
        *(() if config.model.double_quantization else ("--single-quantization",)),
    ]
