"""``cbtrain analyze``: compare arms from their scores, with intervals."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.cli.parser import Commands, add_command
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from cbtrain.eval.report.schema.report import Report

MOST_DRAWS = 1_000_000
"""More take memory and change no digit that is printed."""

PAPER = "paper"
PROTOCOLS = ("default", "tahir2024", "tahir2025", PAPER)
NOT_OF_2025 = ("transcripts", "map", "rubric", "arms", "judge", "long")
"""Options that the 2025 study's analysis has no use for: its table says all that they would."""


def add(commands: Commands) -> None:
    analyze = add_command(
        commands,
        "analyze",
        _analyze,
        "compare arms from scores, the patient as the unit, or as the two studies did",
        "Reads a run folder (scores.csv, human_scores.csv, sessions.jsonl), tables of scores, the 2024 study's "
        "all_scores_with_patients.csv, or the 2025 study's scores.csv.",
    )
    analyze.add_argument(
        "scores", type=Path, nargs="+", metavar="SCORES", help="a run folder, or tables of scores (CSV)"
    )
    analyze.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="default",
        help="default: planned contrasts by patient; tahir2024, tahir2025: that study's own mixed model, to reproduce "
        "it, of 2025 also what it left out; paper: the older name of tahir2024",
    )
    analyze.add_argument(
        "--transcripts",
        type=Path,
        metavar="PATH",
        help="the sessions that were rated, for lengths and endings (default: sessions.jsonl beside the scores)",
    )
    analyze.add_argument(
        "--metadata",
        type=Path,
        metavar="FILE",
        help="table that says whose the sessions are, with which arm, and what the patients are like: of the scores "
        "(by session_id, file, or the columns that both have), and of the transcripts' files, as for rate; "
        "with tahir2025 that study's file of patients",
    )
    analyze.add_argument(
        "--map",
        metavar="OURS=THEIRS,…",
        help="what columns are called in the tables, if not as in a scores.csv: arm=condition,patient=id,total=score",
    )
    analyze.add_argument(
        "--rubric", help="instrument of the scores (default: the run's, or the shipped one if it fits)"
    )
    add_arms_argument(analyze)
    analyze.add_argument("--judge", metavar="NAME", help="use the ratings of this judge only")
    analyze.add_argument(
        "--long",
        type=Path,
        metavar="FILE.csv",
        help="also write a long table for R or pandas, a row for each score of an item, with a codebook beside it",
    )
    add_output_arguments(analyze)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the output of an analysis and for its bootstrap."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for analysis.json and a report: page, Markdown, figures, LaTeX"
    )
    parser.add_argument("--draws", type=int, default=10_000, help="bootstrap draws")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")


def add_arms_argument(parser: argparse.ArgumentParser) -> None:
    """What arms are, where their names cannot say it."""
    what = "YAML file with base, variant and reference of the arms, if their names do not say them (docs/analysis.md)"
    parser.add_argument("--arms", type=Path, metavar="FILE", help=what)


def check_bootstrap(parsed: argparse.Namespace) -> None:
    """Raise UserError if the numbers of the bootstrap are out of range."""
    if parsed.draws < 100:
        raise UserError(f"{parsed.draws} is too few for an interval", where="--draws", hint="At least 100.")
    if parsed.draws > MOST_DRAWS:
        raise UserError(f"{parsed.draws:,} is too many", where="--draws", hint=f"At most {MOST_DRAWS:,}.")
    if parsed.seed < 0:
        raise UserError(f"{parsed.seed} is below 0", where="--seed", hint="Give a number from 0 on.")


def _analyze(parsed: argparse.Namespace) -> None:
    check_bootstrap(parsed)
    protocol = "tahir2024" if parsed.protocol == PAPER else parsed.protocol
    if protocol == "tahir2025":
        _analyze_tahir2025(parsed)
    else:
        _analyze_ratings(parsed, protocol)


def _analyze_ratings(parsed: argparse.Namespace, protocol: str) -> None:
    """Print the analysis of tables in which a row is a rating of a session, by any other protocol."""
    from cbtrain.eval.analysis.analyze import analysis
    from cbtrain.eval.analysis.long_table import write_long_table
    from cbtrain.eval.analysis.mixed_models.tahir2024 import DoesNotFit
    from cbtrain.study.evaluation.analysis_report import report_of
    from cbtrain.study.evaluation.scores import load_scores

    _check_long(parsed)
    named = {name: getattr(parsed, name) for name in ("rubric", "judge", "transcripts", "metadata", "arms")}
    study = load_scores(parsed.scores, **named, mapping=_mapping(parsed.map))
    try:
        results = analysis(
            study.ratings,
            protocol,
            study.outcomes,
            primary_judges=study.primary_judges,
            rotating=study.rotating,
            draws=parsed.draws,
            seed=parsed.seed,
        )
    except DoesNotFit as error:
        raise UserError(str(error), where=parsed.scores[0], hint="Take --protocol default, or other scores.") from None
    show_results(results, (lambda: report_of(study, results)) if protocol == "default" else None, parsed)
    if parsed.long:
        paths = write_long_table(study.ratings, study.instrument, parsed.long)
        if not parsed.json:
            print(f"long table: {paths[0]}; its codebook: {paths[1].name}, {paths[2].name}")


def _analyze_tahir2025(parsed: argparse.Namespace) -> None:
    """Print the 2025 study's analysis. Raises UserError, also on options that it would ignore."""
    from cbtrain.study.evaluation.tahir2025 import analyze_tahir2025

    for name in NOT_OF_2025:
        if getattr(parsed, name) is not None:
            hint = "Leave it out, or take --protocol default."
            raise UserError("the 2025 study's analysis does not use it", where=f"--{name}", hint=hint)
    results = analyze_tahir2025(parsed.scores, parsed.metadata, draws=parsed.draws, seed=parsed.seed)
    show_results(results, None, parsed)


def _check_long(parsed: argparse.Namespace) -> None:
    """Raise UserError if the long table is not called as a CSV, or would replace a table that is read."""
    if parsed.long is None:
        return
    if parsed.long.suffix.casefold() != ".csv":
        raise UserError("the long table is a CSV", where=parsed.long, hint="Name a file that ends in .csv.")
    if parsed.long.name == "scores.csv" or any(parsed.long.resolve() == path.resolve() for path in parsed.scores):
        raise UserError("it would replace a table of scores", where=parsed.long, hint="Choose another name.")


def _mapping(text: str | None) -> dict[str, str]:
    """Return the columns that ``--map`` names, by ours. Raises UserError."""
    hint = "Write our name, =, and the table's: --map arm=condition,patient=id"
    mapping: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not (ours and equals and theirs):
            raise UserError(f"{part!r} is no pair of columns", where="--map", hint=hint)
        if ours in mapping or theirs in mapping.values():
            raise UserError(f"{ours if ours in mapping else theirs!r} comes twice", where="--map", hint=hint)
        mapping[ours] = theirs
    return mapping


def show_results(results: dict[str, Any], make_report: Callable[[], Report] | None, parsed: argparse.Namespace) -> None:
    """Print ``results``, and write them with their report (None: they have none) into the folder ``--out``."""
    from cbtrain.files import write_atomic

    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    page = None
    if parsed.out:
        if make_report:
            from cbtrain.eval.report.write import write_report  # loads matplotlib

            page = write_report(make_report(), parsed.out, {"analysis.json": text + "\n"})
        else:
            write_atomic(parsed.out / "analysis.json", text + "\n")
    if parsed.json:
        print(text)
        return
    from rich.console import Console

    from cbtrain.eval.report.tables import show_analysis

    console = Console()
    show_analysis(results, console)
    if parsed.out:
        paths = f"\nanalysis: {parsed.out / 'analysis.json'}" + (f"\nreport: {page}" if page else "")
        console.print(paths, highlight=False, markup=False, soft_wrap=True)
