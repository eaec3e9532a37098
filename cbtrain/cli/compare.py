"""``cbtrain compare``: the analysis across runs that followed the same protocol."""

from __future__ import annotations

import argparse
from pathlib import Path

from cbtrain.cli.analyze import add_output_arguments, check_bootstrap, show_results
from cbtrain.cli.parser import Commands, add_command


def add(commands: Commands) -> None:
    compare = add_command(
        commands,
        "compare",
        _compare,
        "the same analysis across evaluated runs that followed the same protocol",
        "Runs with other patients, prompts, limits, judges or rubrics are refused, and the differences are named.",
    )
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of two or more evaluated runs")
    add_output_arguments(compare)


def _compare(parsed: argparse.Namespace) -> None:
    from cbtrain.eval.analysis.analyze import analysis
    from cbtrain.study.evaluation.analysis_report import report_of_runs
    from cbtrain.study.evaluation.compare import compare_runs

    check_bootstrap(parsed)
    comparison = compare_runs(parsed.runs)
    results = analysis(
        comparison.ratings,
        "default",
        comparison.outcomes,
        primary_judges=comparison.primary_judges,
        rotating=comparison.rotating,
        draws=parsed.draws,
        seed=parsed.seed,
    )
    results["notes"] += comparison.notes
    show_results(results, lambda: report_of_runs(comparison, results), parsed)
