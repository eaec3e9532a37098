"""``cbtrain patients list | show | check | write | audit``: simulated patients of a library or a file."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli import patients_audit
from cbtrain.cli.exit_codes import BAD_INPUT, DONE, FOUND
from cbtrain.cli.parser import Commands, Parser, add_command, add_settings, continued_by, leading_console
from cbtrain.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cbtrain.patients.case import Case

EVERYBODY = "Nobody in the shipped libraries exists: they are written for research, never for care."
WIDE = 110
"""Columns of a terminal from which on names stand beside ids, which are much like them."""

SOURCE = "a library that ships, or a file or folder of patients"


def add(commands: Commands) -> None:
    """Add ``patients`` and its sub-commands."""
    text = "simulated patients: list, show and check them, write drafts of new ones"
    parser = add_command(commands, "patients", _list, text, EVERYBODY)
    kinds = parser.add_commands(metavar="COMMAND", required=True)
    listed = add_command(kinds, "list", _list, "the patients of a library or a file, and how many of each kind")
    listed.add_argument("path", metavar="PATH", nargs="?", help=f"{SOURCE} (default: all libraries)")
    shown = add_command(kinds, "show", _show, "all that is known of one patient")
    shown.add_argument("id", metavar="ID", help="id of the patient, as `cbtrain patients list` shows it")
    shown.add_argument("--from", dest="path", metavar="PATH", help=f"{SOURCE} (default: all libraries)")
    shown.add_argument("--profile", action="store_true", help="the profile that a simulator is given, not the fields")
    text = "languages, contradictions, gaps and doubles of a file's patients; exit status 1 if one is an error"
    checked = add_command(kinds, "check", _check, text)
    checked.add_argument("path", metavar="PATH", help=SOURCE)
    for command in (listed, checked):
        command.suggest = _libraries
    _add_write(kinds)
    patients_audit.add(kinds)


def _add_write(kinds: Commands) -> None:
    text = "drafts of new patients, asked from a large model and checked; a person has to read them"
    write: Parser = add_command(kinds, "write", _write, text)
    write.add_argument("--provider", required=True, help="a preset, or a YAML file with a provider's settings")
    write.add_argument("--count", required=True, type=int, help="how many patients")
    write.add_argument("--out", required=True, type=Path, help="new file (.yaml, .jsonl) or folder; never overwritten")
    write.add_argument("--like", default="depression", help="library whose patients are the examples (depression)")
    write.add_argument("--brief", default="", metavar="TEXT", help="what the patients are to have in common")
    write.add_argument("--language", default="en", help="ISO 639-1 code of the language to write in (en)")
    write.add_argument("--seed", type=int, default=0, help="another seed writes others (0)")
    write.add_argument("--max-tokens", type=int, default=8192, help="longest answer (8192); more for models that think")
    write.add_argument("--budget", type=float, help="most US dollars to spend")
    add_settings(write, of="provider", example="model=NAME")


def _libraries() -> list[str]:
    from cbtrain.patients.library import libraries

    return libraries()


def _cases(path: str | None) -> list[Case]:
    """Return the patients of a library or a file, or of all libraries; what was left out or guessed is printed."""
    from cbtrain.files import exists, expanded
    from cbtrain.patients.library import libraries, library
    from cbtrain.patients.reading import read_cases

    if path is None:
        return [case for name in libraries() for case in library(name)]
    if path in libraries():
        return library(path)
    if not exists(expanded(path)):
        hint = f"{nearest(path, libraries())} Or name a file or folder."
        raise UserError("neither a library nor a file", where=path, hint=hint)
    return read_cases(expanded(path), say=_say)


def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _list(parsed: argparse.Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from cbtrain.patients.case import COLUMNS

    cases = _cases(parsed.path)
    console = Console()
    named = console.width >= WIDE
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for title in ("id", *(["name"] if named else []), "age", *COLUMNS, "phases"):
        table.add_column(title, no_wrap=title == "id")  # to be copied
    for case in cases:
        columns = [str(getattr(case, column) or "-") for column in COLUMNS]
        age = str(case.demographics.get("age", "-"))
        table.add_row(case.id, *([case.name] if named else []), age, *columns, str(1 + len(case.phases)))
    console.print(table)
    for line in _marginals(cases):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if parsed.path is None:
        console.print(EVERYBODY, highlight=False, markup=False, soft_wrap=True)
    return DONE


def _marginals(cases: Sequence[Case]) -> list[str]:
    """Return how many patients have each value of each column."""
    from cbtrain.patients.case import COLUMNS

    lines = [f"{len(cases)} patients"]
    for column, values in COLUMNS.items():
        counts = Counter(getattr(case, column) for case in cases)
        shown = [f"{value} {counts[value]}" for value in values if counts[value]]
        shown += [f"not given {counts[None]}"] if counts[None] else []
        lines.append(f"{column + ':':<12}{', '.join(shown)}")
    return lines


def _show(parsed: argparse.Namespace) -> int:
    from cbtrain.patients.profile import profile_of
    from cbtrain.patients.writing import yaml_of

    by_id = {case.id: case for case in _cases(parsed.path)}
    if parsed.id not in by_id:
        raise UserError(f"no patient {parsed.id!r}", where=parsed.path, hint=nearest(parsed.id, by_id))
    case = by_id[parsed.id]
    profile = profile_of(case)
    print(f"{profile.brief}\n\n{profile.text}" if parsed.profile else yaml_of(case).rstrip())
    return DONE


def _check(parsed: argparse.Namespace) -> int:
    from cbtrain.patients.checking import check_cases

    cases = _cases(parsed.path)
    checked = check_cases(cases)
    for kind, lines in (("error", checked.errors), ("warning", checked.warnings)):
        for line in lines:
            print(f"{kind}: {line}")
    print(f"{len(cases)} patients: {len(checked.errors)} errors, {len(checked.warnings)} warnings")
    return FOUND if checked.errors else DONE


def _write(parsed: argparse.Namespace) -> int:
    from cbtrain.config.loading import load_provider_config
    from cbtrain.patients.drafts import Order, write_drafts
    from cbtrain.patients.library import library
    from cbtrain.patients.writing import require_absent, write_cases
    from cbtrain.providers.config import ProvidersConfig

    if parsed.count < 1:
        raise UserError("must be at least 1", where="--count", hint="Say how many patients to write.")
    require_absent(parsed.out)
    provider = load_provider_config(parsed.provider, parsed.settings)
    order = Order(
        parsed.count, parsed.brief, parsed.language, parsed.seed, parsed.max_tokens, tuple(library(parsed.like))
    )
    settings, console = ProvidersConfig(budget=parsed.budget), leading_console()
    text = f"Writing {parsed.count} patients"
    with continued_by(parsed.command_line, "--out", parsed.out), console.status(text) as shown:
        drafts = asyncio.run(
            write_drafts(provider, settings, order, _say, lambda state: shown.update(f"{text}: {state}"))
        )
    if drafts.cases:
        write_cases(drafts.cases, parsed.out, f"Drafts by {provider.model}: a person has to read and correct them.")
        print(f"{len(drafts.cases)} drafts: {parsed.out}. Read and correct each; nobody has yet.")
    print(drafts.cost)
    for line in drafts.warnings:
        print(f"warning: {line}")
    for number, reason in drafts.failed.items():
        print(f"cbtrain: patient {number} could not be written: {reason}", file=sys.stderr)
    return BAD_INPUT if drafts.failed else DONE
