"""Run a comparison of objectives: pairs, base, rates, seeds, what models say of pairs, one evaluation, an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import heading, plain, say, table_of
from cbtrain.errors import UserError
from cbtrain.eval.report.formatting import counted
from cbtrain.model.weights.hub import resolve_model
from cbtrain.study.method_comparison.compare import remove_weights
from cbtrain.study.method_comparison.folder import open_folder, write_file
from cbtrain.study.method_comparison.plan_files import best_rate, measured, write_plan, write_plans
from cbtrain.study.method_comparison.runner import Runner
from cbtrain.study.objective_comparison.answer import answer_of, limits_of
from cbtrain.study.objective_comparison.arms import KINDS
from cbtrain.study.objective_comparison.candidates import Comparison, of_small_base
from cbtrain.study.objective_comparison.comparison_file import ObjectivesFile
from cbtrain.study.objective_comparison.data import write_pairs
from cbtrain.study.objective_comparison.evaluation import evaluate, evaluation_config, scored
from cbtrain.study.objective_comparison.page import write_page
from cbtrain.study.objective_comparison.patients import write_patients
from cbtrain.study.objective_comparison.results import Results, arm_results, write_results
from cbtrain.study.objective_comparison.run import RunPlan, of_arm, trained_summary
from cbtrain.study.run_files import STATE

DATA, RUNS, EVALUATION = "data", "runs", "evaluation"

FREE = ("arms", "seeds", "learning_rates")
"""Keys of the file that may grow: what they change is checked run by run."""

CHILD = "cbtrain.study.objective_comparison.child"


def compare_objectives(
    file: ObjectivesFile,
    folder: Path,
    console: Console,
    *,
    jobs: int = 1,
    keep: bool = False,
    allow_upload: bool = False,
) -> Results:
    """Compare the objectives of ``file`` in ``folder``, where an interrupted comparison continues. ``jobs`` runs train
    at a time; what was trained at rates that are not the best is removed unless it is to be ``keep``-ed.

    Raises UserError on what cannot be used before any arm is trained, Stopped if a signal ends it.
    """
    study = file.study()
    _check_patient(study)
    open_folder(file, folder, FREE)
    runs = folder / RUNS
    runs.mkdir(exist_ok=True)
    runner: Runner[RunPlan] = Runner(CHILD, runs, jobs, console, lambda step, plan: _line(step, plan, runs))
    heading(console, "1/6", "Pairs of answers, patients, base")
    parts = write_pairs(file, folder / DATA, console)
    patients = write_patients(study, folder / DATA / "patients", parts.patients, console)
    base, patient = _base(file, study, runs, runner)
    comparison = Comparison.of(file, parts, base, console)
    for arm in file.tuned:
        text = f"{comparison.tokens(arm):,} tokens a run, {comparison.passes(arm):.3g} passes over the pairs"
        say(console, f"{arm}: {KINDS[arm].about}; {text}")
    heading(console, "2/6", "Search the learning rates")
    search = comparison.search()
    write_plans(search, runs)
    write_file(file, folder)  # what is refused before this changes nothing
    failed = _train(search, runs, runner)
    best = {arm: best_rate({plan.rate: _tried(plan, runs) for plan in of_arm(search, arm)}) for arm in file.tuned}
    heading(console, "3/6", "Train with every seed")
    finals = comparison.final(best)
    write_plans(finals, runs)
    failed |= _train(finals, runs, runner)
    done = [plan for plan in finals if trained_summary(runs, plan)]
    heading(console, "4/6", "Ask the models about pairs that were not trained")
    asked = [comparison.of_base(), *done]
    write_plans(asked[:1], runs)
    failed |= runner.do([("measure", plan) for plan in asked if not measured(runs, plan)], "measure")
    if not keep:
        for plan in search:
            if plan.name not in {final.name for final in finals}:
                remove_weights(runs / plan.name)
    heading(console, "5/6", "Evaluate all arms")
    config = evaluation_config(comparison, done, runs, patients, patient)
    evaluate(config, folder / EVALUATION, console, allow_upload=allow_upload)
    heading(console, "6/6", "Results")
    scores, contrasts = scored(folder / EVALUATION, done, list(file.arms))
    arms = arm_results(comparison, search, finals, runs, failed, scores)
    judges = list(config.evaluation.judges) or [config.evaluation.judging.rater]
    limits = limits_of(file, arms, contrasts, parts.counts, judges)
    results = Results(arms, contrasts, parts.counts, judges, answer_of(contrasts), limits)
    write_results(results, comparison, folder)
    write_page(results, folder)
    return results


def plan_objectives(file: ObjectivesFile, folder: Path, console: Console) -> None:
    """Print the runs of ``file`` with their tokens. Nothing is trained, and nothing written to ``folder``. Raises
    UserError as :func:`compare_objectives`."""
    study = file.study()
    _check_patient(study)
    table = table_of("arm", "rates tried", "runs", "tokens a run", "passes")
    comparison = None
    made = folder / RUNS / "base" / "base"
    if study.model.path is not None or made.is_dir():
        base = resolve_model(study.model.path) if study.model.path else made
        with TemporaryDirectory() as data:
            parts = write_pairs(file, Path(data), console)
            write_patients(study, Path(data) / "patients", parts.patients, console)
            comparison = Comparison.of(file, parts, base, console)
    total = 0
    for arm in file.tuned:
        rates = file.rates(arm)
        runs = len(rates) + len(file.seeds) - 1
        total += runs
        tokens = f"{comparison.tokens(arm):,}" if comparison else f"{file.tokens:,}" if file.tokens else "–"
        passes = f"{comparison.passes(arm):.3g}" if comparison else f"{file.passes}" if file.passes else "–"
        table.add_row(arm, ", ".join(f"{rate:g}" for rate in rates), str(runs), tokens, passes)
    console.print(table)
    untuned = [arm for arm in file.arms if not KINDS[arm].tuned]
    therapists = counted(len(file.tuned) * len(file.seeds) + len(untuned), "therapist")
    plain(console, f"{counted(total, 'run')}; then {therapists} are evaluated")
    if comparison is None:
        plain(console, "first a small base and its patient are made; then passes over the pairs are known")


def _check_patient(study: StudyConfig) -> None:
    """Raise UserError if nobody plays the patients: a small base brings a patient of its own."""
    evaluation = study.evaluation
    played = evaluation.patient_provider or evaluation.patient_model
    if study.model.path is not None and not played:
        hint = "Set evaluation.patient_provider (an API) or evaluation.patient_model (a model here)."
        raise UserError("nobody plays the patients of the evaluation", where="settings", hint=hint)
    if evaluation.therapists:
        hint = "Leave it out: the arms are the therapists."
        raise UserError("is decided by the comparison", where="evaluation.therapists", hint=hint)


def _base(file: ObjectivesFile, study: StudyConfig, runs: Path, runner: Runner[RunPlan]) -> tuple[Path, Path | None]:
    """Return the folder of the base and, if the study names no other patient, of the adapter that plays patients; a
    small base is made with it if the study names no model. Raises UserError if it cannot be made."""
    if study.model.path is not None:
        return resolve_model(study.model.path).resolve(), None
    plan = of_small_base(file)
    write_plan(plan, runs)
    folder = (runs / plan.name).resolve()
    if not (folder / STATE).exists() and (failed := runner.do([("train", plan)], "base")):
        raise UserError(f"the small base could not be made: {failed[plan.name]}", where=folder)
    evaluation = study.evaluation
    own = not (evaluation.patient_provider or evaluation.patient_model)
    return folder / "base", folder / "patient" if own else None


def _tried(plan: RunPlan, runs: Path) -> tuple[float | None, float]:
    """Return the validation loss of a run, and the share of validation pairs that it ranks rightly if it compares
    answers."""
    summary = trained_summary(runs, plan) or {}
    return summary.get("validation_best"), (summary.get("pairs") or {}).get("accuracy", 0.0)


def _train(plans: Sequence[RunPlan], runs: Path, runner: Runner[RunPlan]) -> dict[str, str]:
    """Train those of ``plans`` that are not trained yet; return by run what was wrong."""
    return runner.do([("train", plan) for plan in plans if trained_summary(runs, plan) is None], "train")


def _line(step: str, plan: RunPlan, runs: Path) -> str:
    """Return a line about a step that is done."""
    if plan.name == "base":
        return "base: made, with an adapter that plays patients"
    if step == "measure":
        return f"{plan.name}: asked"
    summary = trained_summary(runs, plan) or {}
    loss, pairs = summary.get("validation_best"), summary.get("pairs") or {}
    text = "never finite" if loss is None else f"{loss:.4f}"
    ranked = f", {pairs['accuracy']:.0%} of the pairs ranked rightly" if pairs else ""
    return f"{plan.name}: validation loss {text}{ranked}, {summary['tokens']:,} tokens, {summary['seconds']:.0f} s"
