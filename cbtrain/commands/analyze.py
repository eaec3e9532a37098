"""``cbtrain analyze``: from a table of scores to claims with their intervals."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.errors import UserError
from cbtrain.eval.report.values import fixed, p_value, span

if TYPE_CHECKING:
    from rich.console import Console

Add = Callable[..., argparse.ArgumentParser]

WIDE = 116
"""Columns of a terminal that has room for all figures; narrower ones show the primary ones, and --json has the rest."""


def add_analyze_command(add: Add) -> None:
    analyze = add(
        "analyze",
        _analyze,
        "compare arms from a table of scores, the patient as the unit, or as the 2024 study did",
        "Reads scores.csv of a run, and the 2024 study's all_scores_with_patients.csv.",
    )
    analyze.add_argument("scores", type=Path, metavar="SCORES", help="a table of scores (CSV)")
    analyze.add_argument(
        "--protocol",
        choices=("default", "paper"),
        default="default",
        help="default: planned contrasts by patient; paper: the 2024 study's own mixed model, to reproduce it",
    )
    analyze.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    analyze.add_argument("--out", type=Path, metavar="DIR", help="folder in which to write analysis.json as well")
    analyze.add_argument("--draws", type=int, default=10_000, help="bootstrap draws")
    analyze.add_argument("--seed", type=int, default=0, help="of the bootstrap")


def _analyze(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.eval.analysis.analyze import analysis
    from cbtrain.eval.analysis.paper import DoesNotFit
    from cbtrain.eval.analysis.ratings import read_ratings
    from cbtrain.files import write_atomic

    if parsed.draws < 100:
        raise UserError(f"{parsed.draws} is too few for an interval", where="--draws", fix="At least 100.")
    if parsed.seed < 0:
        raise UserError(f"{parsed.seed} is below 0", where="--seed", fix="Any number from 0 on.")
    ratings = read_ratings(parsed.scores)
    try:
        found = analysis(ratings, parsed.protocol, draws=parsed.draws, seed=parsed.seed)
    except DoesNotFit as error:
        raise UserError(str(error), where=parsed.scores, fix="Take --protocol default, or another table.") from None
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    if parsed.out:
        parsed.out.mkdir(parents=True, exist_ok=True)
        write_atomic(parsed.out / "analysis.json", text + "\n")
    if parsed.json:
        print(text)
        return
    console = Console()
    _show(found, console)
    if parsed.out:
        console.print(f"\nanalysis: {parsed.out / 'analysis.json'}", highlight=False, markup=False, soft_wrap=True)


def _show(found: dict[str, Any], console: Console) -> None:
    from rich import box
    from rich.table import Table

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for place, column in enumerate(columns):
            made.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
        console.print()
        return made

    shown = table(
        f"{found['ratings']:,} ratings of {found['patients']} patients", "arm", "rated", "mean", "SD", "range"
    )
    for group in found["groups"]:
        mean, sd = fixed(group["mean"], 2), fixed(group["sd"], 2)
        shown.add_row(group["name"], f"{group['n']}", mean, sd, span(group["low"], group["high"], 0))
    console.print(shown)
    if found["protocol"] == "paper":
        shown = table("Mixed model as published", "term", "estimate", "95 % interval", "p", "p, Bonf.")
        for term in found["fixed_effects"]:
            shown.add_row(
                term["term"],
                fixed(term["estimate"], 3),
                span(term["ci_low"], term["ci_high"], 3),
                p_value(term["p"]),
                p_value(term["p_adjusted"]),
            )
        console.print(shown)
        console.print(
            f"Variance of patients {found['patient_variance']:.3f}, residual {found['scale']:.3f}, log-likelihood "
            f"{found['log_likelihood']:.3f}, AIC {found['aic']:.2f}, n {found['n']}, optimizer {found['optimizer']}"
            + (f". PROBLEM: {found['problem']}" if found["problem"] else ""),
            highlight=False,
        )
        console.print(
            "A reproduction: its effect of tuning is pooled over bases, sessions without a score are left out."
        )
    else:
        roomy = console.width >= WIDE
        more = ("bootstrap", "mixed model", "d_z") if roomy else ()
        shown = table("Contrasts, the patient as the unit", "", "difference", "95 % interval", "p", "p, Holm", *more)
        for one, model in zip(found["contrasts"], found["mixed_models"], strict=True):
            numbers = [fixed(one["estimate"], 2), span(one["ci_low"], one["ci_high"], 2)]
            numbers += [p_value(one["p"]), p_value(one["p_adjusted"])]
            if roomy:
                numbers.append(span(one["bootstrap_low"], one["bootstrap_high"], 2))
                numbers.append(span(model["ci_low"], model["ci_high"], 2))
                numbers.append(fixed((one["effect"] or {}).get("d_z"), 2))
            shown.add_row(one["id"], *numbers)
        console.print(shown)
        if found["interaction"]:
            console.print(_interaction(found["interaction"]), highlight=False, markup=False, soft_wrap=True)
        for problem in dict.fromkeys(model["problem"] for model in found["mixed_models"] if model["problem"]):
            console.print(f"mixed model: {problem}", highlight=False, markup=False, soft_wrap=True)
        for note in dict.fromkeys(note for one in found["contrasts"] for note in one["notes"]):
            console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(found["notice"], style="dim", highlight=False)


def _interaction(found: dict[str, Any]) -> str:
    """What the test of base × variant says, in a sentence."""
    what = f"Does tuning change bases by different amounts? χ²({found['df']}) = {fixed(found['statistic'], 2)}"
    beyond = ", ".join(f"{base} {fixed(size, 2, signed=True)}" for base, size in found["sizes"].items())
    problem = f". PROBLEM: {found['problem']}" if found["problem"] else ""
    return f"{what}, p {p_value(found['p'])}; points beyond {found['reference']}: {beyond}{problem}"
