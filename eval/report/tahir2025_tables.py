"""The 2025 study's analysis in the terminal: the published model of both instruments, then what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cbtrain.eval.report.formatting import fixed, p_value, share, span, whole

Rows = Sequence[Mapping[str, Any]]


def show_tahir2025(results: Mapping[str, Any], console: Console) -> None:
    """Print ``results``, the return value of
    :func:`cbtrain.study.evaluation.tahir2025.analyze_tahir2025`."""
    outcomes = results["outcomes"].values()
    _say(console, f"Dialogues: {whole(results['ratings'])}; patients: {whole(results['patients'])}")
    for note in results["notes"]:
        _say(console, f"note: {note}")
    for outcome in outcomes:
        if outcome["published"]:
            _published(outcome, console)
    _say(console, results["what"]["published"])
    for outcome in outcomes:
        _differences(f"{outcome['name']}, by patient", outcome["paired"], console, with_effect=True)
    _say(console, results["what"]["paired"])
    for outcome in outcomes:
        _factors(outcome, console)
    _say(console, results["what"]["factors"])
    _length(results, console)
    if any(outcome["moderators"] for outcome in outcomes):
        for outcome in outcomes:
            _moderators(outcome, console)
        _say(console, results["what"]["moderators"])
    _subscales(results, console)
    console.print(results["notice"], style="dim", highlight=False)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _table(console: Console, title: str, *columns: str) -> Table:
    """Print an empty line, and return a table whose first column is text and whose others are numbers."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    console.print()
    return table


def _published(outcome: Mapping[str, Any], console: Console) -> None:
    model = outcome["published"]
    table = _table(console, outcome["name"], "arm", "n", "mean", "SD", "range")
    for row in model["groups"]:
        numbers = (fixed(row["mean"], 2), fixed(row["sd"], 2), span(row["low"], row["high"], 2))
        table.add_row(escape(row["name"]), whole(row["n"]), *numbers)
    console.print(table)
    first, *_ = model["groups"]
    title = f"{outcome['name']}: mixed model as published; arms minus {first['name']}"
    table = _table(console, title, "term", "estimate", "SE", "z", "95 %", "p")
    for row in model["fixed_effects"]:
        numbers = (fixed(row["estimate"], 3), fixed(row["se"], 3), fixed(row["z"], 3))
        name = row["name"].partition(" − ")[0]
        table.add_row(escape(name), *numbers, span(row["ci_low"], row["ci_high"], 3), p_value(row["p"]))
    console.print(table)
    _say(
        console,
        f"log-likelihood {fixed(model['log_likelihood'], 4)}, scale {fixed(model['scale'], 4)}, variance of patients "
        f"{fixed(model['patient_variance'], 3)} (SE {fixed(model['patient_variance_se'], 3)}; the study prints "
        f"{fixed(model['patient_variance_se_as_printed'], 3)}, which is not on its scale)"
        + (f". PROBLEM: {model['problem']}" if model["problem"] else ""),
    )
    if stopped := model["stopped"]:
        _say(
            console,
            f"As published: scale {fixed(stopped['scale'], 4)}, variance of patients "
            f"{fixed(stopped['patient_variance'], 3)}: its optimizer stopped there, {stopped['below_maximum']:.0e} "
            "below the maximum of the log-likelihood, which is the fit above.",
        )
    se = fixed(model["contrasts"][0]["se"], 3)
    title = f"{outcome['name']}: differences as published (SE {se})"
    table = _table(console, title, "", "difference", "95 %", "p", "Holm–Šidák")
    for row in model["contrasts"]:
        ends = span(row["ci_low"], row["ci_high"], 2)
        ps = (p_value(row["p"]), p_value(row["p_adjusted"]))
        table.add_row(escape(row["name"]), fixed(row["estimate"], 3, signed=True), ends, *ps)
    console.print(table)


def _differences(title: str, rows: Rows, console: Console, *, with_effect: bool = False) -> None:
    table = _table(console, title, "", "difference", "95 %", "p", "p, Holm", *(["d_z"] if with_effect else []))
    for row in rows:
        numbers = [fixed(row["estimate"], 2, signed=True), span(row["ci_low"], row["ci_high"], 2)]
        numbers += [p_value(row["p"]), p_value(row["p_adjusted"])]
        table.add_row(escape(row["name"]), *numbers, *([fixed(row["d_z"], 2)] if with_effect else []))
    console.print(table)


def _factors(outcome: Mapping[str, Any], console: Console) -> None:
    factors = outcome["factors"]
    _differences(f"{outcome['name']}: thinking", [*factors["thinking"], *factors["differences"]], console)
    for test in factors["tests"]:
        numerator, denominator = test["df"]
        statistic = f"F({numerator}, {denominator}) = {fixed(test['statistic'], 2)}"
        _say(console, f"{test['name']}: {statistic}, p {p_value(test['p'])}")


def _length(results: Mapping[str, Any], console: Console) -> None:
    outcomes = list(results["outcomes"].values())
    names = (outcome["name"].removeprefix("ACT-FM ") for outcome in outcomes)
    columns = ("arm", "words", f"≥ {results['cap']}\nturns", *(f"r\n{name}" for name in names))
    table = _table(console, "Words of a dialogue, and their correlation with totals", *columns)
    for rows in zip(*(outcome["length"]["arms"] for outcome in outcomes), strict=True):
        first = rows[0]
        numbers = (whole(first["words_mean"]), share(first["share"]))
        table.add_row(escape(first["name"]), *numbers, *(fixed(row["correlation"], 2) for row in rows))
    console.print(table)
    for outcome in outcomes:
        _say(console, f"{outcome['name']} and words: {_correlations(outcome['length'])}")
    for outcome in outcomes:
        if outcome["published"]:
            _at_equal_length(outcome, console)
    _say(console, results["what"]["length"])


def _correlations(length: Mapping[str, Any]) -> str:
    """Return the correlations with their intervals, and what twice the words change."""
    said = [
        f"{row['name']} {fixed(row['r'], 2)} ({span(row['ci_low'], row['ci_high'], 2)})"
        for row in length["correlations"]
    ]
    if slope := length["slope"]:
        points = f"{fixed(slope['estimate'], 2, signed=True)} points"
        said.append(f"twice the words {points} ({span(slope['ci_low'], slope['ci_high'], 2)})")
    return "; ".join([*said, length["problem"]] if length["problem"] else said)


def _at_equal_length(outcome: Mapping[str, Any], console: Console) -> None:
    """Print the differences beside those of dialogues with as many words."""
    if not outcome["length"]["adjusted"]:
        return
    title = f"{outcome['name']}, words held equal"
    table = _table(console, title, "", "as published", "words equal", "95 %", "p")
    for row, adjusted in zip(outcome["published"]["contrasts"], outcome["length"]["adjusted"], strict=True):
        numbers = (fixed(row["estimate"], 2, signed=True), fixed(adjusted["estimate"], 2, signed=True))
        ends = span(adjusted["ci_low"], adjusted["ci_high"], 2)
        table.add_row(escape(row["name"]), *numbers, ends, p_value(adjusted["p"]))
    console.print(table)


def _moderators(outcome: Mapping[str, Any], console: Console) -> None:
    table = _table(console, f"{outcome['name']}: kinds of patients", "gain by column", "levels", "F", "p", "p, Holm")
    for row in outcome["moderators"]:
        known = [level for level in row["levels"] if level["gain"]]
        means = sorted(level["gain"]["estimate"] for level in known)
        ends = span(means[0], means[-1], 2) if means else span(None, None)
        numbers = (ends, fixed(row["statistic"], 2), p_value(row["p"]), p_value(row["p_adjusted"]))
        table.add_row(escape(f"{row['gain']}, by {row['column']}"), *numbers)
    console.print(table)
    for problem in dict.fromkeys(row["problem"] for row in outcome["moderators"] if row["problem"]):
        _say(console, problem)


def _subscales(results: Mapping[str, Any], console: Console) -> None:
    for kind in ("consistent", "inconsistent"):
        rows = [row for row in results["subscales"] if f"_{kind}_" in row["name"]]
        names = (row["name"].rpartition("_")[2] for row in rows)
        table = _table(console, f"ACT-FM, {kind}: mean points of each part, 0 to 9", "arm", *names)
        for arm in results["arms"]:
            table.add_row(escape(arm["name"]), *(fixed(row["means"][arm["name"]], 2) for row in rows))
        console.print(table)
    _say(console, results["what"]["subscales"])
