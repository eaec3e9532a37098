"""Run a comparison: search each method's learning rate, train it with every seed, measure what was trained."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from rich.console import Console

from cbtrain.console import heading, say
from cbtrain.errors import UserError
from cbtrain.model.weights.hub import resolve_model
from cbtrain.study.entity_matching.small_base import make_small_base
from cbtrain.study.entity_matching.train import ADAPTER
from cbtrain.study.method_comparison.candidates import Comparison
from cbtrain.study.method_comparison.comparison_file import ComparisonFile
from cbtrain.study.method_comparison.figure import write_figure
from cbtrain.study.method_comparison.folder import open_folder, write_file
from cbtrain.study.method_comparison.plan_files import best_rate, measured, write_plans
from cbtrain.study.method_comparison.results import Results, results_of, write_results
from cbtrain.study.method_comparison.run import RunPlan, base_measured, trained_summary
from cbtrain.study.method_comparison.runner import Runner
from cbtrain.tasks.entity_matching.documents import question
from cbtrain.tasks.entity_matching.folder import MANIFEST, read_part, shared_pairs, write_parts
from cbtrain.tasks.entity_matching.generate import PARTS, generate_pairs
from cbtrain.tasks.entity_matching.prompts import Prompt

BASE, PAIRS, RUNS = "base", "pairs", "runs"

CHILD = "cbtrain.study.method_comparison.child"

SEED = 0
"""Of generated pairs and of the small base."""

FREE = ("methods", "seeds", "learning_rates")
"""Keys of the file that may grow: what they change is checked run by run."""


def compare_methods(
    file: ComparisonFile, folder: Path, console: Console, *, jobs: int = 1, keep: bool = False
) -> Results:
    """Compare the methods of ``file`` in ``folder``, where an interrupted comparison continues. ``jobs`` runs train at
    a time; what they have trained is removed once it is measured, unless it is to be kept.

    Raises UserError on what cannot be used before any method is trained, Stopped if a signal ends it.
    """
    open_folder(file, folder, FREE)
    heading(console, "1/4", "Base and pairs")
    comparison = prepare(file, folder, console)
    for one in comparison.candidates:
        how = f" ({one.size.set_by})" if one.size.set_by else ""
        say(console, f"{one.name}: {one.size.trained:,} numbers trained{how}")
    runs = folder / RUNS
    runs.mkdir(exist_ok=True)
    runner: Runner[RunPlan] = Runner(CHILD, runs, jobs, console, lambda step, plan: _line(step, plan, runs))
    heading(console, "2/4", "Search the learning rates")
    search = comparison.search()
    write_plans(search, runs)
    write_file(file, folder)  # what is refused before this changes nothing
    failed = _train(search, runs, runner)
    best = [
        best_rate({plan.rate: (_loss(plan, runs), 0.0) for plan in search if plan.method == one.name})
        for one in comparison.candidates
    ]
    heading(console, "3/4", "Train with every seed")
    finals = comparison.final(best)
    for plan in finals:
        forget_unmeasured(plan, runs)
    write_plans(finals, runs)
    failed |= _train(finals, runs, runner)
    heading(console, "4/4", "Measure")
    waiting = [plan for plan in finals if trained_summary(runs, plan) and not measured(runs, plan)]
    works = [("measure", plan) for plan in waiting]
    if finals and base_measured(runs) is None:
        works.insert(0, ("base", finals[0]))
    failed |= runner.do(works, "measure")
    if not keep:
        names = {plan.name for plan in finals}
        done = [plan for plan in finals if measured(runs, plan)]
        lost = [plan for plan in search if plan.name not in names and trained_summary(runs, plan)]
        for plan in [*done, *lost]:
            remove_weights(runs / plan.name)
    results = results_of(comparison, search, finals, runs, failed)
    write_results(results, comparison, folder)
    write_figure(results, folder)
    return results


def prepare(file: ComparisonFile, folder: Path, console: Console) -> Comparison:
    """Return the comparison with its base and pairs, which are made if they are not there; say what is odd about the
    pairs. Raises UserError on pairs that cannot be used, before a base is made."""
    if isinstance(file.pairs, int):
        pairs = folder / PAIRS
        if not (pairs / MANIFEST).exists():
            write_parts(generate_pairs(file.pairs, SEED), pairs, {"pairs": file.pairs, "seed": SEED})
    else:
        pairs = Path(file.pairs)
    data = read_parts(pairs, Prompt.named(file.prompt), console)
    if file.base is not None:
        base = resolve_model(file.base)
    else:
        base = folder / BASE
        if not (base / "config.json").exists():
            make_small_base(base, SEED, console)
    return Comparison.of(file, base, pairs, data, console)


def read_parts(pairs: Path, prompt: Prompt, console: Console) -> str:
    """Return a hash of the three parts in the folder ``pairs``; say what is odd about them. Raises UserError if one is
    missing, empty, or does not fit ``prompt``."""
    if not pairs.is_dir():
        hint = "Name a folder with train, validation and test; one file would be trained on and tested."
        raise UserError("no such folder of pairs", where=pairs, hint=hint)
    parts = {part: read_part(pairs, part) for part in PARTS}
    digest = blake2b(digest_size=16)
    for name, part in parts.items():
        if not part.pairs:
            raise UserError("no pairs to use", where=part.path, hint=f"The part {name} needs some.")
        for note in part.notes():
            say(console, f"{name}: {note}")
        for pair in part.pairs:
            question(pair, prompt)
            digest.update(repr((name, pair.content, pair.prompt, pair.label)).encode())
    for line in shared_pairs(parts):
        say(console, f"Warning: {line}: scores are too good by what was learnt by heart")
    return digest.hexdigest()


def _train(plans: Sequence[RunPlan], runs: Path, runner: Runner) -> dict[str, str]:
    """Train those of ``plans`` that are not trained yet; return by run what was wrong."""
    return runner.do([("train", plan) for plan in plans if trained_summary(runs, plan) is None], "train")


def _loss(plan: RunPlan, runs: Path) -> float | None:
    """Return the validation loss of a run; None if there is none."""
    return (trained_summary(runs, plan) or {}).get("validation_best")


def forget_unmeasured(plan: RunPlan, runs: Path) -> None:
    """Remove a run whose weights were removed before it was measured, as another rate was the best then: it is trained
    again."""
    run = runs / plan.name
    if trained_summary(runs, plan) and not measured(runs, plan) and not (run / ADAPTER).exists():
        shutil.rmtree(run)


def remove_weights(run: Path) -> None:
    """Remove what a run has trained, and its checkpoints; what was written about it stays."""
    shutil.rmtree(run / ADAPTER, ignore_errors=True)
    for checkpoints in run.glob("training/*/checkpoints"):
        shutil.rmtree(checkpoints, ignore_errors=True)


def _line(step: str, plan: RunPlan, runs: Path) -> str:
    """Return a line about a step that is done."""
    if step == "base":
        scores = (base_measured(runs) or {})["scores"]
        return f"base: F1 {scores['f1']:.3f}, {scores['unparsed']} of {scores['pairs']:,} answers unparsed"
    if step == "measure":
        scores = (measured(runs, plan) or {})["scores"]
        return f"{plan.name}: F1 {scores['f1']:.3f}, {scores['unparsed']} of {scores['pairs']:,} answers unparsed"
    summary = trained_summary(runs, plan) or {}
    loss = summary.get("validation_best")
    text = "never finite" if loss is None else f"{loss:.4f}"
    return f"{plan.name}: validation loss {text}, {summary['seconds']:.0f} s"
