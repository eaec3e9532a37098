"""``cbtrain rubric list | show | check | example``: rating instruments that ship, and files of one's own."""

from __future__ import annotations

import argparse
import json
import shutil
import sys

from cbtrain.cli.exit_codes import BAD_INPUT, DONE
from cbtrain.cli.parser import Commands, add_command
from cbtrain.errors import UserError


def add(commands: Commands) -> None:
    """Add ``rubric`` and its sub-commands."""
    text = "rating instruments: list, show and check them, print one to start from"
    parser = add_command(commands, "rubric", _list, text, "The format is described in docs/rubrics.md.")
    kinds = parser.add_commands(metavar="COMMAND", required=True)
    add_command(kinds, "list", _list, "the rubrics that ship")
    shown = add_command(kinds, "show", _show, "all of one rubric, for a reader")
    shown.add_argument("name", metavar="NAME", help="a rubric that ships, or a YAML file")
    shown.add_argument("--json", action="store_true", help="print one JSON object instead")
    checked = add_command(
        kinds, "check", _check, "everything that is wrong with files of rubrics, and what was understood of them"
    )
    checked.add_argument("files", metavar="FILE", nargs="+", help="YAML file, or the name of a rubric that ships")
    for command in (shown, checked):
        command.suggest = _shipped
    add_command(kinds, "example", _example, "print a short rubric with comments, to start from")


def _shipped() -> list[str]:
    from cbtrain.eval.rating.rubric_files import shipped_rubrics

    return list(shipped_rubrics())


def _list(parsed: argparse.Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from cbtrain.eval.rating.rubric_files import load_rubric
    from cbtrain.eval.rating.rubric_words import raters

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for title in ("rubric", "items", "scale", "totals"):
        table.add_column(title, no_wrap=title == "rubric")  # to be copied
    rubrics = {name: load_rubric(name) for name in _shipped()}
    for name, rubric in rubrics.items():
        totals = " to ".join(f"{total:g}" for total in rubric.total_range)
        table.add_row(name, str(len(rubric.domains)), rubric.scale_words, totals)
    console.print(table)
    for name, rubric in rubrics.items():
        text = f"\n{name}: {rubric.name}. {rubric.note} Raters: {raters(rubric)}."
        console.print(text, highlight=False, markup=False)
    return DONE


def _show(parsed: argparse.Namespace) -> int:
    from cbtrain.eval.rating.rubric_files import load_rubric
    from cbtrain.eval.rating.rubric_words import in_full

    rubric = load_rubric(parsed.name)
    if parsed.json:
        found = {"digest": rubric.digest, "points": rubric.points, "total_range": rubric.total_range}
        content = rubric.model_dump(mode="json") | {"cue_language": rubric.cue_language} | found
        print(json.dumps(content | {"subscales": rubric.subscales}, indent=1, ensure_ascii=False))
    else:
        print(in_full(rubric, min(shutil.get_terminal_size().columns, 120)))
    return DONE


def _check(parsed: argparse.Namespace) -> int:
    """Tell what is wrong with every file, a line each, on standard error; what was understood of sound ones."""
    from cbtrain.eval.rating.rubric_files import RubricError, load_rubric
    from cbtrain.eval.rating.rubric_words import understood

    status = DONE
    for name in parsed.files:
        try:
            rubric = load_rubric(name)
        except UserError as error:
            status = BAD_INPUT
            told = [f"{name}: {one}" for one in error.problems] if isinstance(error, RubricError) else [str(error)]
            for line in told:
                print(f"cbtrain: {line}", file=sys.stderr)
        else:
            print("\n  ".join([f"{name}: {rubric.name}", *understood(rubric)]))
    return status


def _example(parsed: argparse.Namespace) -> int:
    from cbtrain.eval.rating.rubric_files import example_text

    print(example_text(), end="")
    return DONE
