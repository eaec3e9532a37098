"""The evaluation half of a study: perplexity, simulated sessions, scores, report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

import cbtrain
from cbtrain.config import StudyConfig
from cbtrain.environment import describe_environment, now, peak_memory_gb
from cbtrain.errors import UserError
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.panel import panel_of, panel_ratings
from cbtrain.eval.analysis.ratings import ratings_of, scale_of_rubric
from cbtrain.eval.analysis.sessions import session_facts
from cbtrain.eval.config import JudgingConfig
from cbtrain.eval.cue_rater import CUE_RATER, CUE_RATER_LABEL, rate
from cbtrain.eval.judge import judge_instructions
from cbtrain.eval.judging import judge_sessions
from cbtrain.eval.perplexity import compare_perplexity
from cbtrain.eval.report import SCHEMA
from cbtrain.eval.report.terminal import summary
from cbtrain.eval.report.values import counted
from cbtrain.eval.report.write import write_report
from cbtrain.eval.rubric import Rubric, load_rubric
from cbtrain.eval.runner import SessionRecord, plan_sessions
from cbtrain.eval.scores import Score, write_scores_csv
from cbtrain.evaluation_report import (
    ARMS,
    as_transcripts,
    describe_arms,
    describe_scale,
    describe_sessions,
    is_tiny,
    title_of,
    with_beside,
)
from cbtrain.generation.local_model import LocalModel, pick_device
from cbtrain.human_ratings import human_scores
from cbtrain.lessons import held_out_lessons
from cbtrain.material import Material, gather
from cbtrain.model.weights.progress import loading_bar
from cbtrain.protocol import PLAN, deviations, study_protocol
from cbtrain.providers.config import ProvidersConfig
from cbtrain.providers.providers import check, recorded
from cbtrain.providers.summary import costs, status
from cbtrain.rated import audit_of
from cbtrain.simulation import simulate
from cbtrain.study import STATE, prepare_process
from cbtrain.telling import heading, say
from cbtrain.tokens.plain_text import plain_document
from cbtrain.traffic import Traffic, open_traffic
from cbtrain.transcripts.writing import write_sessions
from cbtrain.uploads import require_consent, stays_here


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
    chosen = {patient: profiles[patient] for patient in patients}
    protocol = study_protocol(config, folder, chosen, rubric, _rating_protocol(config), list(ARMS))
    async with open_traffic(config.providers, folder, console) as traffic:
        events = traffic.past
        if not any(event["kind"] in (PLAN, "run_started") for event in events):
            events = [*events, traffic.journal.append(PLAN, protocol=protocol)]
        await simulate(sessions, model, model_path, profiles, config, folder, traffic, console)
        write_sessions(as_transcripts(sessions), [], folder / "sessions.jsonl")
        heading(console, "6/7", "Score the sessions")
        scores, rater = await score_sessions(sessions, rubric, config, traffic, console)
        spent = costs(traffic.providers)
    write_scores_csv(scores, folder / "scores.csv")
    heading(console, "7/7", "Report")
    held = {session.id for session in sessions}
    scores = scores + [score for score in human_scores(folder) if score.session_id in held]
    scale = scale_of_rubric(rubric)
    ratings = ratings_of(scores, [domain.id for domain in rubric.domains], ARMS, scale)
    with console.status("Comparing the therapists"):
        deciding = [rater["judge"]]
        facts = session_facts(as_transcripts(sessions))
        found = analysis(ratings, "default", facts, deciding=deciding, seed=config.seed)
        panel = panel_of(ratings, deciding)
        decided = panel_ratings(ratings, panel)
    report = {
        "schema": SCHEMA,
        "created": now(),
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "title": title_of(state),
        "seconds": round(state["seconds"] + time.perf_counter() - started, 1),
        "peak_memory_gb": round(peak_memory_gb(), 2),
        "corpus": state["corpus"],
        "training": state["training"],
        "perplexity": perplexity,
        "rater": rater | {"label": with_beside(rater["label"], panel)},
        "costs": spent,
        "scale": describe_scale(ratings, rubric),
        "arms": describe_arms(sessions, decided, found),
        "analysis": found,
        "audit": audit_of(folder),
        "protocol": protocol,
        "deviations": deviations(protocol, events),
        "prompts": _prompts(config, rubric, rater),
        "sessions": describe_sessions(sessions, scores, names, ratings, panel),
        "config": config.model_dump(mode="json"),
        "environment": describe_environment(),
    }
    with console.status("Drawing figures, writing the report"):
        path = write_report(report, folder)
    console.print(summary(report))
    console.print(f"\nreport: {path}", highlight=False, markup=False, soft_wrap=True)
    return path


def _rating_protocol(config: StudyConfig) -> dict[str, Any]:
    """Who rates, and how they are asked."""
    judging = config.evaluation.judging
    if not uses_llm_judge(judging, config.providers):
        return {"kind": "cue"}
    return {"kind": "llm", "api": judging.provider.identity(), **judging.judge.model_dump(mode="json")}


def _prompts(config: StudyConfig, rubric: Rubric, rater: Mapping[str, str]) -> dict[str, str]:
    """What the models were told, word for word."""
    settings = config.evaluation
    found = {"therapist": config.tokens.therapist_system or "", "patient": ""}
    if settings.patient_provider:
        found["patient"] = settings.patient_instructions
    if rater["judge"] != CUE_RATER:
        found["judge"] = judge_instructions(rubric, rubric.domains)
    return {name: text for name, text in found.items() if text}


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


def uses_llm_judge(judging: JudgingConfig, providers: ProvidersConfig) -> bool:
    """Whether an LLM judge rates; ``auto`` looks for its key or, where a recording answers, for its ratings in that.
    Raises UserError where it is demanded without a key."""
    key = judging.provider.api_key_env
    if providers.replay:
        return judging.rater == "llm" or (judging.rater == "auto" and recorded(providers, judging.provider))
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
    allow_upload = allow_upload or stays_here(config.providers)
    roles = [("patient", patient)] if patient else []
    if uses_llm_judge(judging, config.providers):
        roles.append(("judge", judging.provider))
        what = "sessions simulated from its profiles and transcripts"
        require_consent(config.corpus.path, what, judging.provider.base_url, allow_upload)
    if patient:
        require_consent(config.corpus.path, "its patients' profiles", patient.base_url, allow_upload)
    check(config.providers, roles)
    return load_rubric(config.evaluation.judging.rubric)


async def score_sessions(
    sessions: Sequence[SessionRecord], rubric: Rubric, config: StudyConfig, traffic: Traffic, console: Console
) -> tuple[list[Score], dict[str, str]]:
    """Score every session that did not fail, with the LLM judge where its key is there, else with the cue rater."""
    judging = config.evaluation.judging
    ratable = [session for session in sessions if not session.failed]
    if failures := len(sessions) - len(ratable):
        say(console, f"{counted(failures, 'session')} failed and cannot be rated")
    if uses_llm_judge(judging, config.providers):
        label = f"LLM judge {judging.provider.model}"
        say(console, f"{label} at {judging.provider.base_url}")
        provider = await traffic.providers.open(judging.provider, "judge")
        scores = await judge_sessions(
            provider,
            rubric,
            ratable,
            judging,
            traffic.journal,
            console,
            status=lambda share: status(traffic.providers, "judge", share),
        )
        errors = [score.reason["error"] for score in scores if score.status == "error"]
        where = "providers.budget" if errors and errors[0].startswith("budget") else judging.provider.base_url
        if errors and len(errors) == len(scores):
            fix = "Nothing is lost: mend this and run the same command again."
            raise UserError(f"no session could be rated: {errors[0]}", where=where, fix=fix)
        if errors:
            what = f"{len(errors)} of {len(scores)} ratings are missing ({where}: {errors[0]})"
            say(console, f"note: {what}; mend this and run the same command again to have them")
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
    return scores, {"judge": CUE_RATER, "kind": "cue", "label": CUE_RATER_LABEL}


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
