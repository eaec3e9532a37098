"""``cbtrain rate export | import | adjudicate``: write blind forms for human raters, read them back, settle large
differences."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import cbtrain
from cbtrain.cli import rate_adjudicate
from cbtrain.cli.corpus_reading import add_reading
from cbtrain.cli.parser import ALIASES, Commands, add_command, add_optional_word, add_study_arguments
from cbtrain.cli.rate_export import DEFAULT_RUBRIC, export_forms
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from cbtrain.eval.human_rating.import_forms import Imported, ImportSummary
    from cbtrain.eval.human_rating.key import Key
    from cbtrain.eval.human_rating.training_table import TrainingResult


def add(commands: Commands) -> None:
    export = add_command(
        commands,
        "rate export",
        export_forms,
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
    export.add_argument(
        "--raters", type=int, metavar="N", help="number of forms (default: 2, or as many as --workload names)"
    )
    export.add_argument(
        "--overlap",
        type=int,
        metavar="N",
        help="sessions that every rater rates; each of the others goes to one rater, pairs kept together "
        "(default: all, which measures agreement best)",
    )
    export.add_argument(
        "--ratings-per-session",
        type=int,
        metavar="K",
        help="raters of each session that is not for all (default: 1 with --overlap; 2 with one of the next two)",
    )
    export.add_argument("--per-rater", type=int, metavar="N", help="the most sessions that a rater gets")
    export.add_argument("--workload", metavar="N,N,…", help="the same for each rater, e.g. 20,20,10")
    export.add_argument(
        "--training",
        type=Path,
        metavar="FILE",
        help="table of agreed scores: its sessions come first in every form, their agreed scores are shown afterwards",
    )
    export.add_argument(
        "--training-from",
        type=Path,
        metavar="PATH",
        help="transcripts of the training sessions (default: the sessions that are exported, which then lack them)",
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
        "imported again replaces its own rows. Evidence, notes, and ratings of training sessions are kept in files "
        "beside the table. The report of a run is written anew.",
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
    back.add_argument("--no-report", action="store_true", help="leave the report of the run as it is")
    rate_adjudicate.add(commands)


def _import(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.eval.human_rating.import_forms import SETTLED_FILE, TRAINING_FILE, import_forms
    from cbtrain.eval.human_rating.key import read_key
    from cbtrain.eval.human_rating.notes import companion_file

    key = read_key(parsed.key)
    table = parsed.out or _default_table(key, parsed.key)
    imported = import_forms(parsed.forms, key, table, parsed.rater)
    console = Console()
    for summary in imported.forms:
        _tell_import(summary, console)
    if imported.adjudicated or imported.unsettled:
        _tell_adjudicated(imported, console)
    _say(console, f"\nscores: {table}" if imported.rated else "\nno scores yet: only training sessions are rated")
    _say(console, f"evidence and notes: {companion_file(table, 'notes.jsonl')}")
    for what, kind in (("training, kept apart", TRAINING_FILE), ("settled scores", SETTLED_FILE)):
        if companion_file(table, kind).exists():
            _say(console, f"{what}: {companion_file(table, kind)}")
    _refresh(table, imported, parsed, console)
    console.print(cbtrain.NOTICE, style="dim", highlight=False, markup=False)


def _default_table(key: Key, path: Path) -> Path:
    from cbtrain.eval.human_rating.import_forms import TABLE
    from cbtrain.study.evaluation.scores import human_table

    if key.adjudication is not None:
        table = Path(key.adjudication.table)
        if not table.is_file():
            raise UserError("the table of these scores does not exist", where=table, hint="Name it with --out.")
        return table
    if key.run is None:
        return path.parent / TABLE
    if not Path(key.run).is_dir():
        raise UserError("the run folder of these forms does not exist", where=key.run, hint="Name a table with --out.")
    return human_table(Path(key.run), key.rubric.digest, key.rubric.name)


def _refresh(table: Path, imported: Imported, parsed: argparse.Namespace, console: Console) -> None:
    """Write the report of the run anew, if ``table`` is the one that its report shows, or say how to."""
    from cbtrain.eval.human_rating.import_forms import TABLE
    from cbtrain.study.evaluation.refresh import has_report, refresh_report

    run = table.parent
    if not imported.rated:
        return
    if table.name != TABLE or not has_report(run):
        if has_report(run):
            _say(console, "the run's report shows them once `cbtrain evaluate` is repeated: nothing is asked again")
        _say(console, f"next: cbtrain analyze {table} --out DIR")
        return
    command = f"cbtrain analyze {run} --out {run}"
    if parsed.no_report:
        _say(console, f"the report is as it was: {command} writes it anew")
        return
    try:
        with console.status("Writing the report anew"):
            page = refresh_report(run)
    except UserError as error:
        _say(console, f"note: the ratings are kept, but the report could not be written anew: {error}")
        _say(console, f"then: {command}")
        return
    _say(console, f"report, with these ratings: {page}")


def _tell_import(summary: ImportSummary, console: Console) -> None:
    if summary.settled:
        text = f"form {summary.form} settles {_count(summary.settled, 'score')} of {_count(summary.whole, 'session')}"
        text += f"; {_count(summary.broken_off, 'session')} in part" if summary.broken_off else ""
        text += f"; {_count(summary.unrated, 'session')} not settled" if summary.unrated else ""
    else:
        text = f"{summary.judge}, form {summary.form}: {', '.join(_sessions(summary))}"
        if summary.replaced:
            text += f"; they replace {_count(summary.replaced, 'row')} of an earlier import of the same form"
    lines = [text, *(f"note: {note}" for note in summary.notes)]
    if summary.training is not None:
        lines.append(f"{summary.judge}, training: {_training(summary.training)}")
    for line in lines:
        _say(console, line)


def _sessions(summary: ImportSummary) -> list[str]:
    parts = [f"{_count(summary.whole, 'session')} rated"]
    if summary.unratable:
        parts.append(f"{summary.unratable} with domains that cannot be rated (unratable)")
    if summary.broken_off:
        parts.append(f"{summary.broken_off} rated in part (truncated, their gaps stay empty)")
    if summary.unrated:
        parts.append(f"{summary.unrated} not rated (no row)")
    return parts


def _training(result: TrainingResult) -> str:
    done = "" if result.sessions == result.planned else f" of {result.planned}"
    sessions = "session" if result.planned == 1 else "sessions"
    domain, size = result.furthest
    furthest = f"; furthest in {domain}, {size:.2f}" if domain else ""
    return (
        f"{result.sessions}{done} {sessions}, mean absolute difference from the agreed scores "
        f"{result.mean_difference:.2f} points ({result.above:+.2f} on average{furthest}); {result.exact:.0%} the same, "
        f"{result.adjacent:.0%} at most one point apart ({_count(result.compared, 'score')})"
    )


def _tell_adjudicated(imported: Imported, console: Console) -> None:
    from cbtrain.eval.rating.people import ADJUDICATED

    text = f"{ADJUDICATED}: {_count(imported.adjudicated, 'session')}, settled scores and people's means otherwise"
    if imported.unsettled:
        text += f"; {imported.unsettled} without a row, since a large difference is not settled"
    _say(console, text)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
