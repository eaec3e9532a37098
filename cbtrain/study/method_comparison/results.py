"""What a comparison has come to: a row for each method, over its seeds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from cbtrain import __version__
from cbtrain.console import plain
from cbtrain.files import seal, write_atomic
from cbtrain.study.method_comparison.candidates import Candidate, Comparison
from cbtrain.study.method_comparison.plan_files import measured
from cbtrain.study.method_comparison.run import RunPlan, base_measured, jobs_of, trained_summary
from cbtrain.study.method_comparison.tables import Rows, markdown, print_tables

SCHEMA = "cbtrain.method-comparison/1"

RESULTS, TABLE, PAGE = "comparison.json", "comparison.csv", "comparison.md"

FEW_SEEDS = 5
"""Below so many the lowest and highest value are given, and nothing is said of chance."""

Done = tuple[RunPlan, Mapping[str, Any], Mapping[str, Any]]
"""A run, the summary of its training, and what was measured."""

FAR = 1.5
"""Times the numbers of LoRA from which a method's are said not to be equal."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, lowest and highest value over seeds."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = list(values)
        return cls(fmean(found), min(found), max(found))

    def text(self, show: Callable[[float], str]) -> str:
        return show(self.mean) if self.low == self.high else f"{show(self.mean)} ({show(self.low)}–{show(self.high)})"


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One method. ``rate`` was chosen by the validation loss of the first seed; ``at_edge`` says that it is the lowest
    or highest of several. Perplexity is of the answers. ``forgotten``: by text, KL(base ‖ tuned) in nats a token, and
    the rise of perplexity as a share. ``memory`` (highest) and ``disk`` are bytes, ``seconds`` those of training.
    ``failed`` says why there is nothing else."""

    name: str
    method: str
    trained: int
    size: str | None
    rate: float | None = None
    at_edge: bool = False
    seeds: int = 0
    f1: Spread | None = None
    unparsed: float = 0.0
    pairs: int = 0
    perplexity: Spread | None = None
    kl: Mapping[str, Spread] | None = None
    rise: Mapping[str, Spread] | None = None
    memory: int = 0
    seconds: Spread | None = None
    disk: int = 0
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """``runs``: one row for each that is compared; ``search``: validation losses by method and rate; ``base``: scores
    of the base, or None; ``facts``: what was compared, in one line each."""

    methods: list[MethodResult]
    runs: list[dict[str, Any]]
    search: list[dict[str, Any]]
    base: dict[str, Any] | None
    notes: list[str]
    facts: list[str]


def results_of(
    comparison: Comparison, search: Sequence[RunPlan], finals: Sequence[RunPlan], runs: Path, failed: Mapping[str, str]
) -> Results:
    """Return the results of the runs ``finals`` and of the ``search`` before them, which lie in the folder ``runs``;
    ``failed`` says by run what was wrong."""
    rows: list[dict[str, Any]] = []
    methods = []
    for candidate in comparison.candidates:
        plans = [plan for plan in finals if plan.method == candidate.name]
        done = list(_done(plans, runs))
        problem = next((text for name, text in failed.items() if name.startswith(f"{candidate.name}_rate-")), "")
        rows += [_row(*one) for one in done]
        methods.append(_method(comparison, candidate, done, problem))
    found = base_measured(runs)
    losses = [
        {"method": plan.method, "learning_rate": plan.rate, "validation_loss": summary["validation_best"]}
        for plan in search
        if (summary := trained_summary(runs, plan))
    ]
    notes = [f"{name} failed: {problem}" for name, problem in failed.items()]
    notes += _notes(comparison, methods)
    if unchanged := dict.fromkeys(row["method"] for row in rows if row["best_step"] == 0):
        notes.append(f"{', '.join(unchanged)}: a run kept the weights from before training, so nothing was learnt")
    if (jobs := max((jobs_of(runs, plan) for plan in finals), default=1)) > 1:
        notes.append(f"up to {jobs} runs at a time: seconds are those of a machine that was shared")
    return Results(methods, rows, losses, found["scores"] if found else None, notes, _facts(comparison))


def _facts(comparison: Comparison) -> list[str]:
    file = comparison.file
    pairs = f"{file.pairs:,} generated pairs" if isinstance(file.pairs, int) else f"pairs of {file.pairs}"
    base = f"small base, lessons of seed {comparison.lessons}" if comparison.lessons is not None else file.base
    return [
        f"base: {base}, fingerprint {comparison.fingerprint}",
        f"{pairs}, hash {comparison.data}; prompt {file.prompt}",
        f"{file.tokens:,} tokens a run, size of LoRA of rank {file.rank}, seeds {', '.join(map(str, file.seeds))}",
        f"cbtrain {__version__}",
    ]


def _done(plans: Sequence[RunPlan], runs: Path) -> Iterator[Done]:
    """Yield those of ``plans`` that were trained and measured."""
    for plan in plans:
        summary, found = trained_summary(runs, plan), measured(runs, plan)
        if summary and found:
            yield plan, summary, found


def _row(plan: RunPlan, summary: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return one run, flat."""
    row = {"method": plan.method, "learning_rate": plan.rate, "seed": plan.seed, "trained": summary["trainable"]}
    row |= {name: found["scores"][name] for name in ("f1", "precision", "recall", "accuracy", "unparsed", "pairs")}
    row |= {"perplexity": found["answers"]["tuned_perplexity"], "base_perplexity": found["answers"]["base_perplexity"]}
    for text, numbers in found["forgetting"].items():
        row |= {f"KL, {text}": numbers["kl"], f"rise, {text}": numbers["rise"]}
    row |= {"tokens": summary["tokens"], "seconds": summary["seconds"], "memory": summary["memory"]["total"]}
    row |= {"validation_loss": summary["validation_best"], "best_step": summary["best_step"]}
    return row | {"disk": found["bytes"]}


def _method(comparison: Comparison, candidate: Candidate, done: Sequence[Done], problem: str) -> MethodResult:
    method = comparison.file.methods[candidate.name].get("method", candidate.name)
    head = (candidate.name, method, candidate.size.trained, candidate.size.set_by)
    if not done:
        return MethodResult(*head, failed=problem or "it has not ended")
    rows = [_row(*one) for one in done]
    texts = list(done[0][2]["forgetting"])
    rate, rates = rows[0]["learning_rate"], candidate.rates
    return MethodResult(
        *head,
        rate=rate,
        at_edge=len(rates) > 1 and rate in (rates[0], rates[-1]),
        seeds=len(rows),
        f1=Spread.of(row["f1"] for row in rows),
        unparsed=fmean(row["unparsed"] for row in rows),
        pairs=rows[0]["pairs"],
        perplexity=Spread.of(row["perplexity"] for row in rows),
        kl={text: Spread.of(row[f"KL, {text}"] for row in rows) for text in texts},
        rise={text: Spread.of(row[f"rise, {text}"] for row in rows) for text in texts},
        memory=max(row["memory"] for row in rows),
        seconds=Spread.of(row["seconds"] for row in rows),
        disk=rows[0]["disk"],
        failed=problem,
    )


def _notes(comparison: Comparison, methods: Sequence[MethodResult]) -> list[str]:
    notes, wanted = [], comparison.wanted
    unequal = [one.name for one in methods if one.trained > FAR * wanted or one.trained * FAR < wanted]
    if unequal:
        text = (
            f"{', '.join(unequal)}: more or fewer numbers are trained than by LoRA ({wanted:,}), and it cannot be set"
        )
        notes.append(text)
    if edge := [one.name for one in methods if one.at_edge]:
        notes.append(f"{', '.join(edge)}: the best learning rate is at the edge of those tried; try more")
    seeds = len(comparison.file.seeds)
    if seeds == 1:
        notes.append("one seed: how far another one would be is not known")
    elif seeds < FEW_SEEDS:
        notes.append(f"{seeds} seeds: a difference within the range from lowest to highest says nothing")
    return notes + [f"{one.name}: {one.seeds} of {seeds} seeds" for one in methods if 0 < one.seeds < seeds]


def write_results(results: Results, comparison: Comparison, folder: Path) -> None:
    """Write ``comparison.json``, ``comparison.csv`` (a row for each run) and ``comparison.md`` to ``folder``."""
    content = {
        "schema": SCHEMA,
        "comparison": comparison.file.model_dump(mode="json"),
        "methods": [asdict(one) for one in results.methods],
        "base": results.base,
        "runs": results.runs,
        "search": results.search,
        "notes": results.notes,
    }
    write_atomic(folder / RESULTS, json.dumps(seal(content), indent=2) + "\n")
    if results.runs:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(results.runs[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(results.runs)
        write_atomic(folder / TABLE, text.getvalue())
    lines = [*(f"- {fact}" for fact in results.facts), "", *markdown(_tables(results))]
    write_atomic(folder / PAGE, "\n".join([*lines, *(f"- {note}" for note in results.notes)]) + "\n")


def print_results(results: Results, console: Console) -> None:
    """Print the tables and what limits them."""
    print_tables(_tables(results), console)
    for note in results.notes:
        plain(console, f"note: {note}")


def _tables(results: Results) -> Iterator[Rows]:
    """Yield heads and rows of the tables: what is learnt, what is forgotten of each text, what it costs."""
    texts = next((list(one.kl) for one in results.methods if one.kl), [])
    learnt = [_learnt(one) for one in results.methods]
    if results.base:
        unparsed = f"{results.base['unparsed'] / results.base['pairs']:.1%}"
        before = next((_three(row["base_perplexity"]) for row in results.runs), "–")
        learnt.insert(0, ["(base)", "0", "–", _three(results.base["f1"]), unparsed, before])
    yield ["method", "trained", "rate", "F1", "unparsed", "perplexity"], learnt
    yield ["validation loss by rate", ""], [[one.name, _searched(one, results)] for one in results.methods]
    for text in texts:
        heads = [f"forgotten: {text}", "KL", "rise of perplexity"]
        yield heads, [_forgotten(one, text) for one in results.methods if one.kl]
    yield ["cost", "memory", "seconds", "on disk"], [_cost(one) for one in results.methods if one.seconds]


def _searched(one: MethodResult, results: Results) -> str:
    found = [entry for entry in results.search if entry["method"] == one.name]
    losses = ((entry["learning_rate"], entry["validation_loss"]) for entry in found)
    return ", ".join(f"{rate:g}: {'–' if loss is None else f'{loss:.3f}'}" for rate, loss in losses)


def _learnt(one: MethodResult) -> list[str]:
    if one.f1 is None or one.perplexity is None:
        return [one.name, f"{one.trained:,}", *["–"] * 4]
    unparsed = f"{one.unparsed / one.pairs:.1%}"
    return [one.name, f"{one.trained:,}", f"{one.rate:g}", one.f1.text(_three), unparsed, _three(one.perplexity.mean)]


def _forgotten(one: MethodResult, text: str) -> list[str]:
    assert one.kl is not None
    assert one.rise is not None
    return [one.name, one.kl[text].text(_three), one.rise[text].text(_percent)]


def _cost(one: MethodResult) -> list[str]:
    assert one.seconds is not None
    return [one.name, f"{one.memory / 1e6:,.0f} MB", f"{one.seconds.mean:,.0f}", f"{one.disk / 1e6:,.2f} MB"]


def _three(value: float) -> str:
    return f"{value:.3f}"


def _percent(value: float) -> str:
    return f"{value:+.0%}"
