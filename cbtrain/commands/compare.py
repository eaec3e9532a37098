"""``cbtrain compare``: the analysis across runs of one protocol."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from cbtrain.commands.analyze import add_bootstrap_arguments, check_bootstrap

Add = Callable[..., argparse.ArgumentParser]


def add_compare_command(add: Add) -> None:
    compare = add(
        "compare",
        _compare,
        "the same analysis across evaluated runs, if they hold to one protocol",
        "Runs that were held or rated differently (patients, prompts, limits, judge, rubric …) are refused, and the "
        "differences named.",
    )
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of two evaluated runs or more")
    compare.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    compare.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for analysis.json and a report: page, Markdown, figures, LaTeX"
    )
    add_bootstrap_arguments(compare)


def _compare(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.commands.analysis_tables import show_analysis
    from cbtrain.comparison import compare_runs
    from cbtrain.eval.analysis.analyze import analysis

    check_bootstrap(parsed)
    both = compare_runs(parsed.runs)
    found = analysis(both.ratings, "default", both.facts, draws=parsed.draws, seed=parsed.seed)
    if parsed.json:
        print(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        show_analysis(found, Console())
