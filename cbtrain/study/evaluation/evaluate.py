"""The evaluation half of a study, in order: perplexity, simulated sessions, scores, analysis, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import heading, loading_bar, plain, say
from cbtrain.environment import describe_environment, peak_memory_gb
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.ratings import ratings_of, scale_of_rubric
from cbtrain.eval.analysis.sessions import session_outcomes
from cbtrain.eval.rating.cue_rater import CUE_RATER
from cbtrain.eval.rating.judge import judge_instructions
from cbtrain.eval.rating.perplexity import compare_perplexity
from cbtrain.eval.rating.scores import Score, write_scores_csv
from cbtrain.eval.report.schema.report import Report
from cbtrain.eval.report.schema.training import Rater
from cbtrain.eval.report.terminal import summary
from cbtrain.eval.report.write import write_report
from cbtrain.generation.local_model import LocalModel
from cbtrain.providers.summary import costs
from cbtrain.study.corpus import StudyCorpus, load_corpus
from cbtrain.study.datasets import held_out_datasets
from cbtrain.study.evaluation.checks import check_evaluation, refuse_another_study
from cbtrain.study.evaluation.failures import refuse_if_all_failed, refuse_many_failures
from cbtrain.study.evaluation.protocol import EvaluationProtocol, deviations
from cbtrain.study.evaluation.report_data import ARMS, ReportInput, build_report, title_of
from cbtrain.study.evaluation.run_context import RunContext, open_run
from cbtrain.study.evaluation.score import score_sessions
from cbtrain.study.evaluation.scores import as_transcripts, audit_of, human_scores
from cbtrain.study.evaluation.simulate import PATIENT, THERAPIST, SimulationPlan, simulate
from cbtrain.study.pipeline import prepare_process
from cbtrain.study.run_files import SCORES, TRANSCRIPTS
from cbtrain.study.trained_run import TrainedRun
from cbtrain.tokens.plain_text import plain_document
from cbtrain.transcripts.writing import write_sessions


async def evaluate_study(config: StudyConfig, folder: Path, console: Console, *, allow_upload: bool = False) -> Path:
    """Evaluate the run in ``folder``; return the path of ``report.html``. ``allow_upload``: the user has agreed that
    text from an imported corpus may be sent to the patient's and the judge's API.

    Finished sessions in ``folder/events.jsonl`` are kept, unfinished ones continue. Raises UserError if ``folder`` has
    no trained run in it, or an evaluation with other settings; and, once everything is written, if more sessions failed
    than ``evaluation.max_failures`` allows.
    """
    started = time.perf_counter()
    trained = TrainedRun.read(folder)
    rubric = check_evaluation(config, allow_upload=allow_upload)
    prepare_process(config)
    corpus = load_corpus(config, Console(quiet=True))
    refuse_another_study(trained, corpus, config)

    heading(console, "5/7", "Simulate sessions with held-out patients")
    model = _open_model(trained, config, console)
    perplexity = _measure_perplexity(model, corpus, config, trained, console)
    say(console, perplexity["verdict"])
    patients = [course.id for course in corpus.split.test][: config.evaluation.max_patients]
    all_profiles = corpus.profiles()
    profiles = {patient: all_profiles[patient] for patient in patients}
    plan = SimulationPlan.of(trained, EvaluationProtocol(config, folder, profiles, rubric, list(ARMS)))
    async with open_run(config, folder, console) as run:
        plan.journal(run)
        await simulate(plan, model, run)
        write_sessions(as_transcripts(plan.sessions), [], folder / TRANSCRIPTS)
        refuse_if_all_failed(plan.sessions, run)

        heading(console, "6/7", "Score the sessions")
        scores, rater = await score_sessions(plan.sessions, rubric, run)
        spent = costs(run.providers)
    write_scores_csv(scores, folder / SCORES)

    heading(console, "7/7", "Report")
    report = _report(plan, scores, rater, corpus.names(), run)
    measured = {
        "costs": spent,
        "perplexity": perplexity,
        "seconds": round(trained.seconds + time.perf_counter() - started, 1),
        "peak_memory_gb": round(peak_memory_gb(), 2),
    }
    report = report.updated(Report.model_validate(measured))
    with console.status("Drawing figures, writing the report"):
        path = write_report(report, folder)
    console.print(summary(report))
    plain(console, f"\nreport: {path}")
    refuse_many_failures(plan.sessions, scores, run)
    return path


def _open_model(trained: TrainedRun, config: StudyConfig, console: Console) -> LocalModel:
    """Return the base with the therapist's adapter, and the patient's if no API plays the patients."""
    names = [THERAPIST] if config.evaluation.patient_provider else [THERAPIST, PATIENT]
    with loading_bar(console) as progress:
        model = LocalModel(
            trained.base,
            {name: trained.folder / name for name in names},
            config.evaluation.engine,
            loading=config.model,
            progress=progress,
        )
    if config.evaluation.deterministic:
        say(console, model.engine.be_deterministic())
    return model


def _measure_perplexity(
    model: LocalModel, corpus: StudyCorpus, config: StudyConfig, trained: TrainedRun, console: Console
) -> dict[str, Any]:
    """Return the perplexity of base and tuned therapist on held-out patients' sessions."""
    renderer = model.voices[THERAPIST].renderer
    positions = model.decoder.architecture.context
    datasets = held_out_datasets(corpus, renderer, config, positions, console)
    documents = {patient: dataset.documents for patient, dataset in datasets.items()}
    plain_text = None
    if trained.is_tiny:  # it has read plain text only: part of what tuning adds is the chat layout
        tokenizer = renderer.tokenizer
        plain_text = {
            patient: [plain_document(s, tokenizer, "therapist") for unit in dataset.units for s in unit.sessions]
            for patient, dataset in datasets.items()
        }
    pack_tokens = config.therapist.pack_tokens
    tuned = partial(model.adapters.rows, [(THERAPIST, -1)])
    return compare_perplexity(model.decoder, tuned, documents, corpus.names(), pack_tokens, console, plain_text)


def _report(
    plan: SimulationPlan, scores: Sequence[Score], rater: dict[str, str], patient_names: dict[str, str], run: RunContext
) -> Report:
    """Analyse the scores; return the report with everything that is known of training and evaluation."""
    config, protocol, trained = run.config, plan.protocol, plan.trained
    ids = {session.id for session in plan.sessions}
    scores = [*scores, *(score for score in human_scores(run.folder) if score.session_id in ids)]
    domains = [domain.id for domain in protocol.rubric.domains]
    ratings = ratings_of(scores, domains, ARMS, scale_of_rubric(protocol.rubric))
    primary_judges = [rater["judge"]]
    with run.console.status("Comparing the therapists"):
        outcomes = session_outcomes(as_transcripts(plan.sessions))
        results = analysis(ratings, "default", outcomes, primary_judges=primary_judges, seed=config.seed)
    parts = {
        "title": title_of(trained),
        "corpus": trained.corpus,
        "training": trained.training,
        "audit": audit_of(run.folder),
        "protocol": protocol.compare_key,
        "deviations": deviations(protocol.compare_key, run.events),
        "prompts": _prompts(protocol, rater),
        "config": config.model_dump(mode="json"),
        "environment": describe_environment(),
    }
    data = ReportInput(
        ratings=ratings,
        scores=scores,
        primary_judges=primary_judges,
        results=results,
        sessions=plan.sessions,
        patient_names=patient_names,
        rubric=protocol.rubric,
        rater=Rater.model_validate(rater),
    )
    return build_report(data, Report.model_validate(parts))


def _prompts(protocol: EvaluationProtocol, rater: dict[str, str]) -> dict[str, str]:
    """Return the prompt of each model, word for word."""
    settings, rubric = protocol.config.evaluation, protocol.rubric
    prompts = {"therapist": protocol.therapist_system, "patient": ""}
    if settings.patient_provider:
        prompts["patient"] = settings.patient_instructions
    if rater["judge"] != CUE_RATER:
        prompts["judge"] = judge_instructions(rubric, rubric.domains)
    return {name: text for name, text in prompts.items() if text}
