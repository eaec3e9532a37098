"""``cbtrain power``: how many patients, sessions and repeats a comparison needs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.cli.analyze import add_arms_argument
from cbtrain.cli.parser import Commands, add_command
from cbtrain.errors import UserError, nearest
from cbtrain.eval.report.formatting import fixed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cbtrain.eval.analysis.power.pilot import Pilot, Spread
    from cbtrain.eval.analysis.power.sample_size import Question

MANY_POINTS = 1e6
"""Largest number of points that is accepted."""


def add(commands: Commands) -> None:
    power = add_command(
        commands,
        "power",
        _power,
        "how many patients, sessions and repeats show a difference between two arms",
        "Variances come from a pilot's table of scores, or from --sd-between and --sd-within. With --effect it gives "
        "the patients needed, with --patients the difference that they can detect.",
    )
    pilot = "a pilot: a run folder, its scores.csv, or the 2024 study's all_scores_with_patients.csv"
    power.add_argument("--pilot", type=Path, metavar="SCORES", help=pilot)
    add_arms_argument(power)
    which = "which of the pilot's contrasts to plan for (default: the one that varies most)"
    power.add_argument("--contrast", metavar="NAME", help=which)
    between = "instead of a pilot: SD between patients of the true difference"
    power.add_argument("--sd-between", type=float, metavar="X", help=between)
    within = "instead of a pilot: SD of the sessions of one patient with one arm (--sd-repeat left out of it)"
    power.add_argument("--sd-within", type=float, metavar="X", help=within)
    repeat = "with --sd-within: SD of a judge's repeated ratings of one session"
    power.add_argument("--sd-repeat", type=float, metavar="X", help=repeat)
    power.add_argument("--effect", type=float, metavar="POINTS", help="difference of totals to detect")
    power.add_argument(
        "--patients", type=int, metavar="N", help="number of patients: which difference can they detect?"
    )
    seeds = "sessions of each patient with each arm (default: a table of several numbers)"
    power.add_argument("--seeds", type=int, metavar="N", help=seeds)
    times = "ratings of each session by each judge (default: a table, where their noise is known)"
    power.add_argument("--repeats", type=int, metavar="N", help=times)
    power.add_argument("--power", type=float, default=0.8, metavar="SHARE", help="power to reach (default: 0.8)")
    power.add_argument("--alpha", type=float, default=0.05, metavar="SHARE", help="two-sided (default: 0.05)")
    together = "contrasts that share alpha, by Bonferroni or Holm (default: 1)"
    power.add_argument("--contrasts", type=int, default=1, metavar="K", help=together)
    power.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def _power(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.eval.analysis.power.sample_size import study_size

    question = _question(parsed)
    pilots = _pilots(parsed, question)
    spread = pilots[0].spread if pilots else _by_hand(parsed)
    if question.repeats and question.repeats > 1 and spread.repeat is None:
        hint = "Leave it out, or rate the pilot's sessions twice." if pilots else "Give --sd-repeat as well."
        raise UserError("how repeated ratings vary is not known", where="--repeats", hint=hint)
    result = study_size(spread, question, pilots)
    if parsed.json:
        print(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
        return
    _show(result, Console())


def _question(parsed: argparse.Namespace) -> Question:
    """Return the question, with its numbers checked. Raises UserError."""
    from cbtrain.eval.analysis.power.power import LEAST_ALPHA, MOST_PATIENTS, MOST_POWER
    from cbtrain.eval.analysis.power.sample_size import Question

    if parsed.effect is None and parsed.patients is None:
        raise UserError(
            "nothing to plan for", hint="Give --effect (how many patients?) or --patients (what can they detect?)."
        )
    if parsed.effect is not None:
        _in_points(parsed.effect, "--effect", parsed.effect > 0, "above 0")
    for name, least in (("patients", 2), ("seeds", 1), ("repeats", 1), ("contrasts", 1)):
        value = getattr(parsed, name)
        if value is not None and not least <= value <= MOST_PATIENTS:
            what = f"{value} is too {'few' if value < least else 'many'}"
            raise UserError(what, where=f"--{name}", hint=f"From {least} to {MOST_PATIENTS:,}.")
    if not 0 < parsed.alpha < 1:
        raise UserError(
            f"{parsed.alpha:g} is not a level", where="--alpha", hint="Give a number between 0 and 1, such as 0.05."
        )
    if parsed.alpha / parsed.contrasts < LEAST_ALPHA:
        what = f"{parsed.alpha / parsed.contrasts:g} for each contrast is too small"
        raise UserError(what, where="--alpha", hint=f"At least {LEAST_ALPHA:g} after sharing among --contrasts.")
    if not parsed.alpha < parsed.power <= MOST_POWER:
        hint = f"Above --alpha, at most {MOST_POWER}; 0.8 is usual."
        raise UserError(f"{parsed.power:g} cannot be planned for", where="--power", hint=hint)
    names = ("effect", "patients", "seeds", "repeats", "power", "alpha", "contrasts")
    return Question(**{name: getattr(parsed, name) for name in names})


def _in_points(value: float, where: str, fits: bool, range_: str) -> None:
    if not (fits and value <= MANY_POINTS):  # NaN fits nothing
        raise UserError(f"{value:g} cannot be planned with", where=where, hint=f"Give it in points, {range_}.")


def _by_hand(parsed: argparse.Namespace) -> Spread:
    from cbtrain.eval.analysis.power.pilot import Spread

    given = {name: getattr(parsed, f"sd_{name}") for name in ("between", "within", "repeat")}
    for name in ("between", "within"):
        if given[name] is None:
            hint = "Give both --sd-between and --sd-within, or a --pilot."
            raise UserError("how scores vary is not known", where=f"--sd-{name}", hint=hint)
    for name, value in given.items():
        if value is not None:
            _in_points(value, f"--sd-{name}", value >= 0, "0 or above")
    if not any(given.values()):
        raise UserError("nothing varies", where="--sd-between", hint="One of the SDs has to be above 0.")
    return Spread(**given)


def _pilots(parsed: argparse.Namespace, question: Question) -> list[Pilot]:
    """Return the pilot's variances of each contrast that has any, the one to plan for first."""
    by_hand = [f"--sd-{name}" for name in ("between", "within", "repeat") if getattr(parsed, f"sd_{name}") is not None]
    if parsed.pilot is None:
        for option in ("contrast", "arms"):
            if getattr(parsed, option) is not None:
                raise UserError("there is no pilot to take it from", where=f"--{option}", hint="Give --pilot SCORES.")
        return []
    if by_hand:
        raise UserError("the pilot gives this SD", where=by_hand[0], hint="Leave out this, or --pilot.")
    from cbtrain.eval.analysis.agreement.panel import panel_of, panel_ratings
    from cbtrain.eval.analysis.contrast_plan import plan_contrasts
    from cbtrain.eval.analysis.power.pilot import NoPilot, estimate
    from cbtrain.study.evaluation.scores import load_scores

    rated = load_scores([parsed.pilot], arms=parsed.arms)
    ratings = panel_ratings(rated.ratings, panel_of(rated.ratings, rated.primary_judges, rotating=rated.rotating))
    plans = {plan.id: plan for plan in plan_contrasts(ratings.arms) if len(plan.pairs) == 1}
    if not plans:
        hint = "A pilot needs two arms with the same patients."
        raise UserError("one arm only: there is no difference to plan for", where=parsed.pilot, hint=hint)
    wanted = list(plans) if parsed.contrast is None else [_named(parsed.contrast, list(plans))]
    pilots, problems = [], []
    for name in wanted:
        try:
            pilots.append(estimate(ratings, plans[name]))
        except NoPilot as problem:
            problems.append(f"{name}: {problem}")
    if not pilots:
        hint = "Take another pilot, or give --sd-between and --sd-within."
        raise UserError(problems[0], where=parsed.pilot, hint=hint)
    each, times = question.seeds or 3, question.repeats or 1
    return sorted(pilots, key=lambda pilot: -pilot.spread.variance(each, times))


def _named(name: str, contrasts: Sequence[str]) -> str:
    """Return the contrast called ``name``, which may be abbreviated if it stays unique; a hyphen is read as a minus."""

    def plain(text: str) -> str:
        return " ".join(text.replace("−", "-").casefold().split())

    sought = plain(name)
    for fits in (str.__eq__, str.startswith, str.__contains__):
        matches = [contrast for contrast in contrasts if sought and fits(plain(contrast), sought)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UserError(
                f"{name!r} may be {' or '.join(matches)}", where="--contrast", hint="Write more of the name."
            )
    raise UserError(f"no contrast {name!r} here", where="--contrast", hint=nearest(name, contrasts))


def _show(result: dict[str, Any], console: Console) -> None:
    from rich import box
    from rich.table import Table

    def say(text: str, style: str | None = None) -> None:
        console.print(text, highlight=False, markup=False, style=style)

    if result["pilots"]:
        say("\nSDs from the pilot, in points")
        shown = Table(box=box.SIMPLE_HEAD)
        shown.add_column("contrast")
        for column in ("patients", "pairs", "between", "within", "repeat"):
            shown.add_column(column, justify="right")
        for pilot in result["pilots"]:
            spread = [fixed(pilot["spread"][name], 2) for name in ("between", "within", "repeat")]
            shown.add_row(pilot["contrast"], f"{pilot['patients']}", f"{pilot['pairs']}", *spread)
        console.print(shown)
        say(
            "between: patients' true differences; within: sessions of a patient with one arm; "
            "repeat: repeated ratings of a session"
        )
        if len(result["pilots"]) > 1:
            say(f"Planned for the one that varies most: {result['pilots'][0]['contrast']}")
    title, columns = _columns(result["question"])
    say(f"\n{title}")
    console.print(_designs(result, columns))
    several = any(design["repeats"] > 1 for design in result["designs"])
    say("sessions: of each patient with each arm" + ("; ratings: of each session by each judge" if several else ""))
    say(result["conclusion"])
    for note in result["notes"]:
        say(f"note: {note}")
    say(result["notice"], style="dim")


def _columns(question: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the table's title and columns: patients needed, or the smallest detectable difference, and the power."""
    target = f"{100 * question['power']:g} % power, alpha {question['alpha_each']:.3g}, two-sided"
    effect = f"{question['effect']:g} points" if question["effect"] is not None else ""
    if question["patients"] is None:
        return f"Patients for a difference of {effect} ({target})", {"patients": "patients"}
    columns = {"detectable": "smallest difference"} | ({"power": f"power for {effect}"} if effect else {})
    return f"Differences that {question['patients']:,} patients can detect ({target})", columns


def _designs(result: dict[str, Any], columns: dict[str, str]) -> Table:
    from rich import box
    from rich.table import Table

    designs = result["designs"]
    several = any(design["repeats"] > 1 for design in designs)
    limit = f"at the upper {100 * result['upper_level']:.0f} % limit" if result["upper_level"] else ""
    shown = Table(box=box.SIMPLE_HEAD)
    for column in ("sessions", *(["ratings"] if several else [])):
        shown.add_column(column, justify="right")
    for name in columns.values():
        shown.add_column(name, justify="right", max_width=12)
        if limit:
            shown.add_column(limit, justify="right", max_width=13)
    for design in designs:
        cells = [f"{design['seeds']}", *([f"{design['repeats']}"] if several else [])]
        for key in columns:
            cells += [_cell(key, figures) for figures in (design, design.get("upper")) if figures is not None]
        shown.add_row(*cells)
    return shown


def _cell(key: str, figures: dict[str, Any]) -> str:
    from cbtrain.eval.analysis.power.power import MOST_PATIENTS

    value = figures[key]
    if key == "patients":
        return f"over {MOST_PATIENTS:,}" if value is None else f"{value:,}"
    return f"{100 * value:.0f} %" if key == "power" else fixed(value, 2)
