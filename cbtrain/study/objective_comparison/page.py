"""The results of a comparison of objectives as tables: in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from cbtrain.console import plain
from cbtrain.files import write_atomic
from cbtrain.study.method_comparison.results import Spread
from cbtrain.study.method_comparison.tables import Rows, markdown, print_tables
from cbtrain.study.objective_comparison.arms import UNTUNED
from cbtrain.study.objective_comparison.results import ArmResult, Results

PAGE = "objectives.md"

NONE = "–"


def write_page(results: Results, folder: Path) -> None:
    """Write ``objectives.md``: answer, tables and limits."""
    lines = [results.answer[0], "", *markdown(tables(results))]
    lines += [*(f"- {line}" for line in results.answer[1:]), "", "What this comparison cannot say:", ""]
    lines += [f"- {limit}" for limit in results.limits]
    write_atomic(folder / PAGE, "\n".join(lines) + "\n")


def print_results(results: Results, console: Console) -> None:
    """Print tables, answer and limits."""
    print_tables(tables(results), console)
    for line in results.answer:
        plain(console, line)
    for limit in results.limits:
        plain(console, f"note: {limit}")


def tables(results: Results) -> Iterator[Rows]:
    """Yield head and rows of each table."""
    arms = results.arms
    yield (
        ["arm", "rate", "seeds", "tokens", "passes", "search: rate, loss, ranked"],
        [_trained(one) for one in arms if one.rate or one.failed],
    )
    for part in ("validation", "test"):
        if any(part in one.pairs for one in arms):
            heads = [f"{results.counts[part]} {part} pairs", "ranked", "moved", "log p chosen", "log p rejected"]
            yield heads, [_ranked(one, part) for one in arms if part in one.pairs]
    for text in dict.fromkeys(text for one in arms for text in one.forgotten):
        heads = [f"forgotten: {text}", "KL", "rise of perplexity"]
        yield heads, [_forgotten(one, text) for one in arms if text in one.forgotten]
    contrasts = {contrast.id: contrast for contrast in results.contrasts}
    rows = []
    for one in arms:
        found = contrasts.get(f"{one.name} − {UNTUNED}")
        difference = NONE
        if found is not None and found.estimate is not None:
            difference = _interval(found.estimate, found.ci_low, found.ci_high, "+.2f")
        score = one.score
        told = _interval(score.mean, score.low, score.high, ".2f") if score else NONE
        rows.append([one.name, str(score.sessions) if score else NONE, told, difference])
    yield ["arm", "sessions", "score", f"− {UNTUNED}"], rows


def _trained(one: ArmResult) -> list[str]:
    tried = "; ".join(
        f"{s.rate:g}: {NONE if s.loss is None else f'{s.loss:.3f}'}"
        + (f", {s.accuracy:.0%}" if s.accuracy is not None else "")
        for s in one.search
    )
    if one.rate is None:
        return [one.name, *[NONE] * 4, tried or NONE]
    seeds = ", ".join(map(str, one.seeds))
    return [one.name, f"{one.rate:g}", seeds, f"{one.tokens:,.0f}", f"{one.passes:.3g}", tried]


def _forgotten(one: ArmResult, text: str) -> list[str]:
    found = one.forgotten[text]
    return [one.name, f"{found['kl']:.3f}", f"{found['rise']:+.0%}"]


def _ranked(one: ArmResult, part: str) -> list[str]:
    found = one.pairs[part]
    moved = found["moved"].text(_share) if "moved" in found else NONE
    return [one.name, found["ranked"].text(_share), moved, *(_nats(found[name]) for name in ("chosen", "rejected"))]


def _nats(spread: Spread) -> str:
    return spread.text(lambda value: f"{value:.3f}")


def _share(value: float) -> str:
    return f"{value:.0%}"


def _interval(value: float, low: float | None, high: float | None, form: str) -> str:
    if low is None or high is None:
        return f"{value:{form}}"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"
