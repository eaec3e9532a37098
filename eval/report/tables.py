"""An analysis in the terminal: all its tables, as wide as there is room for."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cbtrain.eval.rating.cue_rater import CUE_RATER, CUE_RATER_LABEL
from cbtrain.eval.report.formatting import GAP, fixed, p_value, share, span, whole
from cbtrain.eval.report.interaction import interaction_sentence
from cbtrain.eval.report.notable import length_notes, spread_sentence

WIDE = 116
"""Columns of a terminal that has room for all figures; narrower ones show the primary ones, and --json has the rest."""


def show_analysis(found: dict[str, Any], console: Console) -> None:
    """Print ``found``, what :func:`cbtrain.eval.analysis.analyze.analysis` gives."""
    _show_groups(found, console)
    if found["protocol"] == "paper":
        _show_published(found, console)
    else:
        _show_contrasts(found, console)
        _show_checks(found, console)
        _show_arms(found, console)
        _show_agreement(found, console)
    if CUE_RATER in found["judges"]:
        _say(console, f"{CUE_RATER}: {CUE_RATER_LABEL}")
    console.print(found["notice"], style="dim", highlight=False)


def _table(console: Console, title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place == 0 else "right", overflow="fold")
    console.print()
    return made


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _show_groups(found: dict[str, Any], console: Console) -> None:
    title = f"Ratings: {found['ratings']:,}; patients: {found['patients']}"
    shown = _table(console, title, "arm", "rated", "mean", "SD", "range")
    for group in found["groups"]:
        numbers = (fixed(group["mean"], 2), fixed(group["sd"], 2), span(group["low"], group["high"], 0))
        shown.add_row(escape(group["name"]), f"{group['n']}", *numbers)
    console.print(shown)


def _show_published(found: dict[str, Any], console: Console) -> None:
    # Two lines, which leave the items' names room at 80 columns.
    arms = [f"{group['base']}\n{group['variant']}" for group in found["groups"]]
    shown = _table(console, "Item means", "item", *arms)
    for item in found["groups"][0]["items"]:
        shown.add_row(escape(item), *(fixed(group["items"][item], 2) for group in found["groups"]))
    console.print(shown)
    shown = _table(console, "Mixed model as published", "term", "estimate", "95 % interval", "p", "p, Bonf.")
    for term in found["fixed_effects"]:
        shown.add_row(
            escape(term["term"]),
            fixed(term["estimate"], 3),
            span(term["ci_low"], term["ci_high"], 3),
            p_value(term["p"]),
            p_value(term["p_adjusted"]),
        )
    console.print(shown)
    console.print(
        f"Variance of patients {found['patient_variance']:.3f}, residual {found['residual_variance']:.3f}, "
        f"log-likelihood {found['log_likelihood']:.3f}, AIC {found['aic']:.2f}, n {found['n']}, "
        f"optimizer {found['optimizer']}" + (f". PROBLEM: {found['problem']}" if found["problem"] else ""),
        highlight=False,
    )
    console.print("A reproduction: its effect of tuning is pooled over bases, sessions without a score are left out.")


def _show_contrasts(found: dict[str, Any], console: Console) -> None:
    if not found["contrasts"]:
        for note in found["notes"]:
            _say(console, f"note: {note}")
        return
    roomy = console.width >= WIDE
    more = ("bootstrap", "mixed model", "d_z") if roomy else ()
    title = "Contrasts, the patient as the unit"
    shown = _table(console, title, "", "difference", "95 % interval", "p", "p, Holm", *more)
    for one, model in zip(found["contrasts"], found["mixed_models"], strict=True):
        numbers = [fixed(one["estimate"], 2), span(one["ci_low"], one["ci_high"], 2)]
        numbers += [p_value(one["p"]), p_value(one["p_adjusted"])]
        if roomy:
            numbers.append(span(one["bootstrap_low"], one["bootstrap_high"], 2))
            numbers.append(span(model["ci_low"], model["ci_high"], 2))
            numbers.append(fixed((one["effect"] or {}).get("d_z"), 2))
        shown.add_row(escape(one["id"]), *numbers)
    console.print(shown)
    if spread := spread_sentence({"analysis": found}):
        _say(console, spread)
    if crossed := interaction_sentence({"analysis": found}):
        _say(console, crossed)
    for problem in dict.fromkeys(model["problem"] for model in found["mixed_models"] if model["problem"]):
        _say(console, f"mixed model: {problem}")
    for note in [*found["notes"], *_notes_of(found["contrasts"])]:
        _say(console, f"note: {note}")


def _notes_of(contrasts: list[dict[str, Any]]) -> list[str]:
    """Each note once, with the contrasts that it is about unless it is about all."""
    about: dict[str, list[str]] = {}
    for one in contrasts:
        for note in one["notes"]:
            about.setdefault(note, []).append(one["id"])
    return [note if len(ids) == len(contrasts) else f"{'; '.join(ids)}: {note}" for note, ids in about.items()]


def _show_checks(found: dict[str, Any], console: Console) -> None:
    """What the differences become with length taken into account, and whatever missing scores would have been."""
    length, missing = found["length"], any(bound["missing"] for bound in found["bounds"])
    if not length and not missing:
        return
    columns = ["turns held equal", f"≥ {length['at_least']['turns']} turns", "matched on length"] if length else []
    columns += ["worst to best case"] if missing else []
    shown = _table(console, "What could be behind a difference", "", "difference", *columns)
    for place, one in enumerate(found["contrasts"]):
        numbers = [fixed(one["estimate"], 2)]
        if length:
            others = (length["adjusted"], length["at_least"]["contrasts"], length["matched"]["contrasts"])
            roomy = console.width >= WIDE
            numbers += [_with_interval(rows[place]) if roomy else fixed(rows[place]["estimate"], 2) for rows in others]
        if missing:
            bound = found["bounds"][place]
            numbers.append(span(bound["worst_low"], bound["worst_high"], 2) if bound["missing"] else "none missing")
        shown.add_row(escape(one["id"]), *numbers)
    console.print(shown)
    if length and length["spearman"]:
        r = length["spearman"]
        bounds = span(r["ci_low"], r["ci_high"], 2)
        _say(console, f"{_trend(r)}: Spearman {fixed(r['r'], 2)} ({bounds}) over {r['n']:,} sessions.")
    for note in length_notes({"analysis": found}):
        _say(console, f"note: {note}")


def _trend(correlation: dict[str, Any]) -> str:
    low, high = correlation["ci_low"], correlation["ci_high"]
    if low is None or high is None or low <= 0 <= high:
        return "Whether totals go with turns is open"
    return "Totals rise with turns" if low > 0 else "Totals fall with turns"


def _show_arms(found: dict[str, Any], console: Console) -> None:
    lengths = {row["name"]: row for row in (found["length"] or {}).get("arms", [])}
    shown = _table(console, "What became of sessions", "arm", "planned", "failed", "unrated", "turns", "competent")
    for done, level in zip(found["completion"]["arms"], found["levels"], strict=True):
        turns = fixed(lengths.get(done["name"], {}).get("turns_mean"), 1)
        competent = share(level["share"])
        if level["share_low"] is not None:
            competent += f" ({share(level['share_low'])} to {share(level['share_high'])})"
        counts = [whole(done[name]) for name in ("planned", "failed", "unrated")]
        shown.add_row(escape(done["name"]), *counts, turns, competent)
    console.print(shown)
    cutoff = (found["scale"] or {}).get("cutoff")
    if cutoff is None:
        _say(console, "Competent: no cut-off is known for this scale.")
    else:
        _say(console, f"Competent: a total of {fixed(cutoff, 0)} or more, by convention; not validated for this scale.")


def _show_agreement(found: dict[str, Any], console: Console) -> None:
    agreement = found["agreement"]
    if not agreement:
        return
    if agreement["between"]:
        names = ("ICC(2,1)", "ICC(3,1)", "weighted kappa", "Krippendorff")
        shown = _table(console, "Agreement of judges on the total (95 % intervals)", "", *names)
        for between in agreement["between"]:
            who = f"{', '.join(between['judges'])}: {between['sessions']:,} sessions"
            shown.add_row(escape(who), *_coefficients(between["total"]))
        console.print(shown)
        first = agreement["between"][0]
        shown = _table(console, f"By item, {', '.join(map(escape, first['judges']))}", "", *names)
        for row in first["items"]:
            shown.add_row(escape(row["item"]), *_coefficients(row))
        console.print(shown)
    for row in agreement["judge_by_arm"]:
        if row["estimate"] is not None:
            _say(console, f"{' minus '.join(row['judges'])}, {row['id']}: {_with_interval(row)} points")
    for row in agreement["retest"]:
        what = f"{row['repeats']} ratings of {row['sessions']:,} sessions by {row['judge']}"
        _say(console, f"{what}: ICC(2,1) {_with_interval(row['icc'])}, SD within a session {_with_interval(row['sd'])}")
    for row in agreement["halo"]:
        parts = f"r between items {_with_interval(row['mean_r'])}, first factor {_with_interval(row['first_factor'])}"
        _say(console, f"Halo, {row['judge']}: Cronbach's alpha {_with_interval(row['alpha'])}, {parts}")


def _coefficients(row: dict[str, Any]) -> list[str]:
    return [_with_interval(row[key]) for key in ("icc_single", "icc_consistency", "kappa", "alpha")]


def _with_interval(row: dict[str, Any]) -> str:
    if row["estimate"] is None:
        return GAP
    bounds = span(row["ci_low"], row["ci_high"], 2)
    return f"{fixed(row['estimate'], 2)} ({'no interval' if bounds == GAP else bounds})"
