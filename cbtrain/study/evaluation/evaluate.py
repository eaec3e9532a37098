"""The evaluation half of a study: perplexity, simulated sessions, scores, report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

import cbtrain
from cbtrain.config.schema import StudyConfig
from cbtrain.console import heading, loading_bar, say
from cbtrain.environment import describe_environment, now, peak_memory_gb
from cbtrain.eval.analysis.agreement.panel import panel_of, panel_ratings
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.ratings import ratings_of, scale_of_rubric
from cbtrain.eval.analysis.sessions import session_outcomes
from cbtrain.eval.rating.cue_rater import CUE_RATER
from cbtrain.eval.rating.judge import judge_instructions
from cbtrain.eval.rating.perplexity import compare_perplexity
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import write_scores_csv
from cbtrain.eval.report import SCHEMA
from cbtrain.eval.report.terminal import summary
from cbtrain.eval.report.write import write_report
from cbtrain.eval.simulation.runner import plan_sessions
from cbtrain.generation.local_model import LocalModel, pick_device
from cbtrain.providers.summary import costs
from cbtrain.study.corpus import StudyCorpus, load_corpus
from cbtrain.study.datasets import held_out_datasets
from cbtrain.study.evaluation.checks import check_evaluation, refuse_another_study
from cbtrain.study.evaluation.protocol import PLAN, deviations, study_protocol
from cbtrain.study.evaluation.report_data import (
    ARMS,
    as_transcripts,
    describe_arms,
    describe_scale,
    describe_sessions,
    is_tiny,
    title_of,
    with_beside,
)
from cbtrain.study.evaluation.run_context import open_run
from cbtrain.study.evaluation.score import score_sessions, uses_llm_judge
from cbtrain.study.evaluation.scores import audit_of, human_scores
from cbtrain.study.evaluation.simulate import simulate
from cbtrain.study.pipeline import prepare_process
from cbtrain.study.run_folder import base_of, read_state
from cbtrain.tokens.plain_text import plain_document
from cbtrain.transcripts.writing import write_sessions


async def evaluate_study(config: StudyConfig, folder: Path, console: Console, *, allow_upload: bool = False) -> Path:
    """Evaluate the run in ``folder``; returns the path of ``report.html``. ``allow_upload``: the user has agreed that
    what comes from an imported corpus may be sent to the patient's and the judge's API.

    Sessions found in ``folder/events.jsonl`` are kept, begun ones go on. Raises UserError where ``folder`` holds no
    trained run or an evaluation of other settings.
    """
    started = time.perf_counter()
    state = read_state(folder)
    rubric = check_evaluation(config, allow_upload=allow_upload)
    prepare_process(config)
    material = load_corpus(config, Console(quiet=True))
    refuse_another_study(config, state, material, folder)
    profiles = material.profiles()
    names = material.names()
    settings = config.evaluation
    heading(console, "5/7", "Simulate sessions with held-out patients")
    model_path = base_of(state, folder)
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
    async with open_run(config.providers, folder, console) as run:
        events = run.past
        if not any(event["kind"] in (PLAN, "run_started") for event in events):
            events = [*events, run.journal.append(PLAN, protocol=protocol)]
        await simulate(sessions, model, model_path, profiles, config, folder, run, console)
        write_sessions(as_transcripts(sessions), [], folder / "sessions.jsonl")
        heading(console, "6/7", "Score the sessions")
        scores, rater = await score_sessions(sessions, rubric, config, run, console)
        spent = costs(run.providers)
    write_scores_csv(scores, folder / "scores.csv")
    heading(console, "7/7", "Report")
    held = {session.id for session in sessions}
    scores = scores + [score for score in human_scores(folder) if score.session_id in held]
    scale = scale_of_rubric(rubric)
    ratings = ratings_of(scores, [domain.id for domain in rubric.domains], ARMS, scale)
    with console.status("Comparing the therapists"):
        deciding = [rater["judge"]]
        facts = session_outcomes(as_transcripts(sessions))
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


def _measure_perplexity(
    model: LocalModel, material: StudyCorpus, config: StudyConfig, state: Mapping[str, Any], console: Console
) -> dict[str, Any]:
    lessons = held_out_datasets(material, model.renderer, config, model.decoder.architecture.context)
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
