"""``cbtrain rate export`` and ``cbtrain rate import``: write blind forms for human raters, and read them back."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cbtrain
from cbtrain.cli.corpus_reading import add_reading, config_of
from cbtrain.cli.parser import ALIASES, Commands, add_command, add_optional_word, add_study_arguments
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from cbtrain.eval.human_rating.export import Exported
    from cbtrain.eval.human_rating.import_forms import ImportSummary
    from cbtrain.eval.human_rating.key import Key
    from cbtrain.eval.simulation.runner import SimulatedSession

DEFAULT_RUBRIC = "cbt_fidelity"


def add(commands: Commands) -> None:
    export = add_command(
        commands,
        "rate export",
        _export,
        "write blind forms for human raters: a web page, or a CSV with a text to read",
        "Each rater gets a folder with the sessions under codes, in a random order of their own. key.json, beside "
        "these folders, says what the codes mean: do not show it to raters. E.g. `cbtrain rate export PATH --out DIR "
        f"corpus.skip_bad=true`. {ALIASES}",
    )
    add_optional_word(export, "path", "a run folder, or a corpus of transcripts in any format", "corpus.path")
    add_study_arguments(export, "corpus.path=PATH evaluation.judging.rubric=NAME")
    export.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder to make for the forms")
    export.add_alias(
        "--rubric",
        "evaluation.judging.rubric",
        metavar="NAME",
        help=f"a shipped rubric, or a YAML file with one (default: the run's own, else {DEFAULT_RUBRIC})",
    )
    export.add_argument(
        "--sessions",
        type=int,
        metavar="N",
        help="draw N sessions at random, as many of each arm, with the same patients and seeds (default: all)",
    )
    export.add_argument("--raters", type=int, default=2, metavar="N", help="number of forms (default: 2)")
    export.add_argument(
        "--overlap",
        type=int,
        metavar="N",
        help="sessions that every rater rates; each of the others goes to one rater, pairs kept together "
        "(default: all, which measures agreement best)",
    )
    export.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the draw, the orders and the codes (default: 0)"
    )
    add_reading(export, "format of a corpus (see `cbtrain corpus --help`)")

    back = add_command(
        commands,
        "rate import",
        _import,
        "import filled rating forms as one more judge",
        "Every form is checked against the key first; nothing is written if one does not fit. A form that is "
        "imported again replaces its own rows. Evidence and notes are kept in files beside the table.",
    )
    back.add_argument("forms", type=Path, nargs="+", metavar="FORM", help="a download of the page, or a filled CSV")
    back.add_argument(
        "--key", type=Path, required=True, help="the key.json that `cbtrain rate export` wrote with the forms"
    )
    back.add_argument("--rater", metavar="NAME", help="name for the judge, in place of the one in the (single) form")
    back.add_argument(
        "--out",
        type=Path,
        metavar="TABLE",
        help="table of scores to make or add to (default: human_scores.csv in the run folder, else beside the key)",
    )


def _export(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.eval.human_rating.assignment import AssignmentSettings
    from cbtrain.eval.human_rating.export import FormsOrigin, write_forms
    from cbtrain.eval.rating.rubric_files import load_rubric
    from cbtrain.study.evaluation.scores import is_run

    for name, least in (("sessions", 1), ("raters", 1), ("overlap", 0), ("seed", 0)):
        value = getattr(parsed, name)
        if value is not None and value < least:
            raise UserError(f"{value} is too small", where=f"--{name}", hint=f"At least {least}.")
    config = config_of(parsed)
    if "path" not in config.corpus.model_fields_set:
        hint = "Name a run folder or a corpus; 'sample' is the embedded one."
        raise UserError("nothing to rate is named", where="rate export", hint=hint)
    path, judging = Path(config.corpus.path), config.evaluation.judging
    run = path.resolve() if is_run(path) else None
    rubric_name = _rubric_of(run) if run and "rubric" not in judging.model_fields_set else judging.rubric
    rubric = load_rubric(rubric_name)
    sessions, failures = _sessions(parsed, path, run)
    source = str(path.resolve()) if path.exists() else str(path)
    settings = AssignmentSettings(parsed.sessions, parsed.raters, parsed.overlap, parsed.seed)
    exported = write_forms(sessions, rubric, parsed.out, FormsOrigin(source, run, rubric_name), settings)
    _tell_export(exported, sessions, failures, parsed, Console())


def _rubric_of(run: Path) -> str:
    from cbtrain.config.loading import load_config

    return load_config(None, (), run / "config.yaml").evaluation.judging.rubric


def _sessions(parsed: argparse.Namespace, path: Path, run: Path | None) -> tuple[list[SimulatedSession], int]:
    """Return the sessions that can be rated, and the number of failed ones. Says which others are left out."""
    from cbtrain.cli.corpus_reading import whole
    from cbtrain.eval.rating.ratable import why_unratable
    from cbtrain.study.evaluation.scores import records

    if run and not (run / "sessions.jsonl").exists():
        raise UserError("no simulated sessions in this run", where=path, hint="`cbtrain evaluate` makes them.")
    sessions = list(records(whole(parsed).sessions()))
    ratable = [session for session in sessions if not session.failed]
    if not ratable:
        raise UserError("all its sessions failed", where=path, hint="Evaluate again, or name another corpus.")
    unread = {session.id: why for session in ratable if (why := why_unratable(session.turns, session.labels_seen))}
    for reason, count in Counter(unread.values()).most_common():
        reason = reason.replace("corpus.therapist_labels=…", "--therapist-label …")
        reason = reason.replace("corpus.patient_labels=…", "--patient-label …")
        if len(unread) == len(ratable):
            raise UserError(f"no session can be rated: {reason}", where=path)
        print(f"left out: {_count(count, 'session')} that cannot be rated: {reason}", file=sys.stderr)
    return [session for session in ratable if session.id not in unread], len(sessions) - len(ratable)


def _tell_export(
    exported: Exported,
    sessions: Sequence[SimulatedSession],
    failures: int,
    parsed: argparse.Namespace,
    console: Console,
) -> None:
    from cbtrain.console import table_of

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    assignment = exported.assignment
    arms = len({session.arm for session in sessions})
    of = f" of {len(sessions)}" if assignment.drawn < len(sessions) else ""
    pairs = ", the same patients and seeds in all" if assignment.paired and arms > 1 and parsed.sessions else ""
    say(f"{_count(assignment.drawn, 'session')}{of}, {_count(arms, 'arm')}{pairs}; {assignment.shared} for every rater")
    if parsed.sessions and assignment.drawn < parsed.sessions:
        say(f"note: {parsed.sessions} cannot be divided equally among {arms} arms, so it is {assignment.drawn}")
    if parsed.sessions and not assignment.paired:
        say("note: no patient and seed has a session in every arm, so arms are compared on different ones")
    if failures:
        say(f"note: {_count(failures, 'session')} failed and cannot be rated")
    table = table_of("rater", "form", "sessions", "give them this folder", numbers=1, words=1)
    for number, (folder, form) in enumerate(exported.folders, 1):
        table.add_row(str(number), form, str(len(assignment.by_rater[number - 1])), f"{folder.name}/")
    console.print()
    console.print(table, highlight=False, markup=False)
    say(f"\nforms: {parsed.out}")
    say(f"KEEP TO YOURSELF: {exported.key} (it breaks the blinding)")
    say(f"next: cbtrain rate import FORM… --key {exported.key}")
    console.print(cbtrain.NOTICE, style="dim", highlight=False, markup=False)


def _import(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.eval.human_rating.import_forms import companion_file, import_forms
    from cbtrain.eval.human_rating.key import read_key

    key = read_key(parsed.key)
    table = parsed.out or _default_table(key, parsed.key)
    summaries = import_forms(parsed.forms, key, table, parsed.rater)
    console = Console()
    for summary in summaries:
        _tell_import(summary, console)
    paths = f"\nscores: {table}\nevidence and notes: {companion_file(table, 'notes.jsonl')}"
    console.print(paths, highlight=False, markup=False, soft_wrap=True)
    console.print(cbtrain.NOTICE, style="dim", highlight=False, markup=False)


def _default_table(key: Key, path: Path) -> Path:
    from cbtrain.eval.human_rating.import_forms import TABLE

    if key.run is None:
        return path.parent / TABLE
    if not Path(key.run).is_dir():
        raise UserError("the run folder of these forms does not exist", where=key.run, hint="Name a table with --out.")
    return Path(key.run) / TABLE


def _tell_import(summary: ImportSummary, console: Console) -> None:
    parts = [f"{_count(summary.whole, 'session')} rated"]
    if summary.unratable:
        parts.append(f"{summary.unratable} with domains that cannot be rated (unratable)")
    if summary.broken_off:
        parts.append(f"{summary.broken_off} rated in part (truncated, their gaps stay empty)")
    if summary.unrated:
        parts.append(f"{summary.unrated} not rated (no row)")
    text = f"{summary.judge}, form {summary.form}: {', '.join(parts)}"
    if summary.replaced:
        text += f"; they replace {_count(summary.replaced, 'row')} of an earlier import of the same form"
    for line in (text, *(f"note: {note}" for note in summary.notes)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
