"""The evaluation half of a study: perplexity, simulated sessions, scores, report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

import cbtrain
from cbtrain.config import StudyConfig
from cbtrain.environment import describe_environment, peak_memory_gb
from cbtrain.errors import UserError
from cbtrain.eval.config import JudgingConfig
from cbtrain.eval.cue_rater import CUE_RATER_LABEL, rate
from cbtrain.eval.dialogue import Speaker
from cbtrain.eval.judging import judge_sessions
from cbtrain.eval.perplexity import compare_perplexity
from cbtrain.eval.report.terminal import summary
from cbtrain.eval.report.write import write_report
from cbtrain.eval.rubric import Rubric, load_rubric
from cbtrain.eval.runner import SessionRecord, plan_sessions, restore, run_sessions
from cbtrain.eval.scores import Score, write_scores_csv
from cbtrain.eval.speakers import ApiPatient, LocalTherapist
from cbtrain.eval.statistics import paired_contrast
from cbtrain.evaluation_report import (
    ARMS,
    as_transcripts,
    describe_arms,
    describe_scale,
    describe_sessions,
    is_tiny,
    title_of,
)
from cbtrain.generation.local_model import LocalModel, pick_device
from cbtrain.generation.server_process import server_process
from cbtrain.journal import journal as journals
from cbtrain.lessons import held_out_lessons
from cbtrain.material import Material, gather
from cbtrain.model.weights.progress import loading_bar
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.openai import OpenAIProvider
from cbtrain.study import STATE, now, prepare_process
from cbtrain.telling import heading, say
from cbtrain.tokens.formats import saved_format
from cbtrain.tokens.plain_text import plain_document
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.writing import write_sessions
from cbtrain.uploads import require_consent

EVENTS = "events.jsonl"
"""The journal of a run: every turn and every judge's rating, the source of truth."""


def trained_config(folder: Path) -> Path:
    """The settings of the trained run in ``folder``. Raises UserError where training has not come to its end."""
    if not (folder / STATE).exists() or not (folder / "config.yaml").exists():
        problem = "training has not come to its end here" if (folder / "training").exists() else "not a trained run"
        raise UserError(problem, where=folder, fix="Name a folder that `cbtrain train` finished, or train again.")
    return folder / "config.yaml"


def newest_trained_run(runs: Path) -> Path | None:
    """The run folder under ``runs`` that was trained last, or None."""
    states = sorted(runs.glob(f"*/{STATE}"), key=lambda path: path.stat().st_mtime)
    return states[-1].parent if states else None


async def evaluate_study(config: StudyConfig, folder: Path, console: Console, *, allow_upload: bool = False) -> Path:
    """Evaluate the run in ``folder``; returns the path of ``report.html``. ``allow_upload``: the user has agreed that
    what comes from an imported corpus may be sent to the patient's and the judge's API.

    Sessions found in ``folder/events.jsonl`` are kept, begun ones go on. Raises UserError where ``folder`` holds no
    trained run or an evaluation of other settings.
    """
    started = time.perf_counter()
    state = _read_state(folder)
    rubric = check_evaluation(config, allow_upload=allow_upload)
    prepare_process(config)
    material = gather(config, Console(quiet=True))
    _refuse_another_study(config, state, material, folder)
    profiles = material.profiles()
    names = material.names()
    settings = config.evaluation
    heading(console, "5/7", "Simulate sessions with held-out patients")
    model_path = _model_path(state, folder)
    with loading_bar(console) as progress:
        model = LocalModel(
            model_path,
            str(folder / "therapist"),
            settings.engine,
            held=config.model,
            device=pick_device(config.model.device),
            progress=progress,
        )
    perplexity = _measure_perplexity(model, material, config, state, console)
    say(console, perplexity["verdict"])
    patients = [course.id for course in material.split.test][: settings.max_patients]
    sessions = plan_sessions(patients, list(ARMS), settings.seeds)
    await simulate(sessions, model, model_path, profiles, config, folder, console)
    write_sessions(as_transcripts(sessions), [], folder / "sessions.jsonl")
    heading(console, "6/7", "Score the sessions")
    scores, rater = await score_sessions(sessions, rubric, config, folder, console)
    write_scores_csv(scores, folder / "scores.csv")
    heading(console, "7/7", "Report")
    report = {
        "schema": "cbtrain.report/1",
        "created": now(),
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "title": title_of(state),
        "seconds": round(state["seconds"] + time.perf_counter() - started, 1),
        "peak_memory_gb": round(peak_memory_gb(), 2),
        "corpus": state["corpus"],
        "training": state["training"],
        "perplexity": perplexity,
        "rater": rater,
        "scale": describe_scale(rubric),
        "arms": describe_arms(sessions, scores),
        "contrasts": [asdict(paired_contrast(scores, "tuned", "base"))],
        "sessions": describe_sessions(sessions, scores, names),
        "config": config.model_dump(mode="json"),
        "environment": describe_environment(),
    }
    path = write_report(report, folder)
    console.print(summary(report))
    console.print(f"\nreport: {path}", highlight=False, markup=False, soft_wrap=True)
    return path


def _refuse_another_study(config: StudyConfig, state: Mapping[str, Any], material: Material, folder: Path) -> None:
    """Raise UserError where corpus, split or base are not those that ``folder`` was trained with."""
    if material.facts["split"] != state["corpus"]["split"]:
        fix = "Evaluate with the corpus and split settings of the training run."
        raise UserError("its patients were split differently in training", where=folder, fix=fix)
    if material.facts["fingerprint"] != state["corpus"]["fingerprint"]:
        fix = "Bring back the transcripts and corpus settings of the training run, or train again."
        raise UserError("the transcripts have changed since training", where=config.corpus.path, fix=fix)
    trained = None if is_tiny(state) else state["model"]
    if config.model.path not in (trained, state["model"]):
        fix = "An adapter fits its own base only: leave model.path as it is."
        raise UserError(f"trained on {state['model']}, not on {config.model.path}", where=folder, fix=fix)


def _protocol(config: StudyConfig, folder: Path, patients: Mapping[str, Profile | None]) -> dict[str, Any]:
    """Everything that decides what is said in a session: one run of sessions holds to one protocol."""
    settings = config.evaluation.model_dump_json(exclude={"judging", "sessions_in_flight", "perplexity_tokens"})
    weights = blake2b(digest_size=8)
    for file in sorted((folder / "therapist").glob("*.safetensors")):
        with file.open("rb") as handle:
            while block := handle.read(1 << 24):
                weights.update(block)
    layout = saved_format(folder / "therapist")
    known = [profile.model_dump_json() if profile else name for name, profile in patients.items()]
    return {
        "evaluation": json.loads(settings),
        "seed": config.seed,
        "tokens.therapist_system": config.tokens.therapist_system,
        **{f"model.{key}": getattr(config.model, key) for key in ("weights", "double_quantization", "compute")},
        "the adapter": weights.hexdigest(),
        **({"the chat format": layout.template} if layout else {}),
        "the patients' profiles": blake2b("\n".join(known).encode(), digest_size=8).hexdigest(),
    }


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first key on which two protocols differ."""
    key = next(key for key in {**one, **other} if one.get(key, ...) != other.get(key, ...))
    inner, before = one.get(key), other.get(key)
    return f"{key}.{_difference(inner, before)}" if isinstance(inner, dict) and isinstance(before, dict) else key


async def simulate(
    sessions: Sequence[SessionRecord],
    model: LocalModel,
    model_path: str,
    profiles: Mapping[str, Profile | None],
    config: StudyConfig,
    folder: Path,
    console: Console,
) -> None:
    """Hold ``sessions``: the therapist in this process, the patient behind an API (by default our own server)."""
    settings = config.evaluation
    protocol = _protocol(config, folder, {session.patient: profiles[session.patient] for session in sessions})
    events = folder / EVENTS
    past = list(journals.read(events)) if events.exists() else []
    begun = next((event["settings"] for event in past if event["kind"] == "run_started"), protocol)
    if begun != protocol:
        fix = f"Set it back, or remove {events.name} to simulate anew."
        raise UserError(f"{_difference(protocol, begun)} differs from the sessions begun here", where=folder, fix=fix)
    restore(sessions, past)
    if past:
        kept = sum(session.ending is not None for session in sessions)
        say(console, f"resuming: {kept} of {len(sessions)} sessions are finished")
    if all(session.ending for session in sessions):
        return
    threads = torch.get_num_threads()
    # Therapist and patient run side by side: half of the cores each.
    torch.set_num_threads(max(1, threads // 2))
    async with AsyncExitStack() as stack:
        journal = stack.enter_context(journals.Journal(events))
        journal.append("run_started" if not past else "resumed", settings=protocol)
        provider_config = settings.patient_provider
        instructions: str | None = settings.patient_instructions
        if provider_config is None:
            instructions = None
            with console.status("Starting the patient's server"):
                url = await stack.enter_async_context(
                    server_process(_server_arguments(model_path, folder, config), folder / "patient_server.log")
                )
            say(console, f"the patients answer at {url} (POST /chat/completions)")
            provider_config = ProviderConfig(
                base_url=url, model="patient", max_in_flight=max(32, settings.sessions_in_flight)
            )
        provider = await stack.enter_async_context(OpenAIProvider(provider_config))
        await stack.enter_async_context(model)
        therapists = {
            arm: LocalTherapist(model, settings.therapist, config.tokens.therapist_system, adapter=arm == "tuned")
            for arm in ARMS
        }

        def speakers(session: SessionRecord) -> tuple[Speaker, Speaker]:
            profile = profiles[session.patient]
            patient = ApiPatient(provider, profile, settings.patient, instructions, forbidden=model.renderer.specials)
            return patient, therapists[session.arm]

        await run_sessions(
            sessions,
            speakers,
            journal,
            in_flight=settings.sessions_in_flight,
            max_turns=settings.max_turns,
            max_words=settings.max_words,
            run_seed=config.seed,
            console=console,
        )
    torch.set_num_threads(threads)
    if sessions and all(session.ending == "provider_error" for session in sessions):
        fix = "Nothing is lost: mend this and run `cbtrain evaluate` on the same run folder."
        raise UserError(f"every session failed: {sessions[0].error}", where=provider_config.base_url, fix=fix)


def uses_llm_judge(judging: JudgingConfig) -> bool:
    """Whether an LLM judge rates; ``auto`` looks for its key. Raises UserError where it is demanded without a key."""
    key = judging.provider.api_key_env
    has_key = key is None or bool(os.environ.get(key))
    if judging.rater == "llm" and not has_key:
        raise UserError("the LLM judge's API key is not set", where=key, fix=f"export {key}=… before the run.")
    return judging.rater == "llm" or (judging.rater == "auto" and has_key)


def check_evaluation(config: StudyConfig, *, allow_upload: bool = False) -> Rubric:
    """Find before a long run what would stop it at its end. Raises UserError."""
    judging, patient = config.evaluation.judging, config.evaluation.patient_provider
    missing = {"therapist"} if patient else {"therapist", "patient"}
    if absent := sorted(missing - set(config.training.speakers)):
        fix = "Train both, or name a patient behind an API (evaluation.patient_provider)."
        raise UserError(f"an evaluation needs a {absent[0]}", where="training.speakers", fix=fix)
    if uses_llm_judge(judging):
        what = "sessions simulated from its profiles and transcripts"
        require_consent(config.corpus.path, what, judging.provider.base_url, allow_upload)
    if patient:
        require_consent(config.corpus.path, "its patients' profiles", patient.base_url, allow_upload)
    if patient and patient.api_key_env and not os.environ.get(patient.api_key_env):
        fix = f"export {patient.api_key_env}=… before the run."
        raise UserError("the patient API's key is not set", where=patient.api_key_env, fix=fix)
    return load_rubric(config.evaluation.judging.rubric)


async def score_sessions(
    sessions: Sequence[SessionRecord], rubric: Rubric, config: StudyConfig, folder: Path, console: Console
) -> tuple[list[Score], dict[str, str]]:
    """Score every session that did not fail, with the LLM judge where its key is there, else with the cue rater."""
    judging = config.evaluation.judging
    ratable = [session for session in sessions if not session.failed]
    if uses_llm_judge(judging):
        label = f"LLM judge {judging.provider.model}"
        say(console, f"{label} at {judging.provider.base_url}")
        async with OpenAIProvider(judging.provider) as provider:
            scores = await judge_sessions(provider, rubric, ratable, judging, folder / EVENTS, console)
        if scores and all(score.status == "error" for score in scores):
            fix = "The dialogues are kept: mend this and run `cbtrain evaluate` on the same run folder."
            raise UserError(scores[0].reason["error"], where=judging.provider.base_url, fix=fix)
        return scores, {"judge": judging.provider.model, "kind": "llm", "label": label}
    say(console, CUE_RATER_LABEL)
    scores = [
        rate(
            session.turns,
            rubric,
            session_id=session.id,
            arm=session.arm,
            patient=session.patient,
            seed=session.seed,
        )
        for session in track(ratable, "score", console=console, disable=not console.is_terminal)
    ]
    return scores, {"judge": "cue", "kind": "cue", "label": CUE_RATER_LABEL}


def _measure_perplexity(
    model: LocalModel, material: Material, config: StudyConfig, state: Mapping[str, Any], console: Console
) -> dict[str, Any]:
    lessons = held_out_lessons(material, model.renderer, config, model.decoder.architecture.context)
    documents = {patient: chosen.documents for patient, chosen in lessons.items()}
    plain = None
    if is_tiny(state):  # it has read plain text only: part of what tuning adds is the chat layout
        tokenizer = model.renderer.tokenizer
        plain = {
            patient: [plain_document(s, tokenizer, "therapist") for unit in chosen.units for s in unit.sessions]
            for patient, chosen in lessons.items()
        }
    pack_tokens = config.therapist.pack_tokens
    return compare_perplexity(model.decoder, documents, material.names(), pack_tokens, console, plain)


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


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("not a trained run", where=folder, fix="Name a folder that `cbtrain train` made.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"damaged ({error})", where=folder / STATE, fix="Train again.") from None
    if not isinstance(state, dict) or not {"model", "corpus", "training", "seconds"} <= set(state):
        raise UserError("damaged (parts are missing)", where=folder / STATE, fix="Train again.")
    return state


def _model_path(state: Mapping[str, Any], folder: Path) -> str:
    inside = folder / state["model"]
    return str(inside) if inside.is_dir() else str(state["model"])
