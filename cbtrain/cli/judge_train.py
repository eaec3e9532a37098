"""``cbtrain judge train``: fit an offline rater to scores that exist."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli.parser import Commands, add_command, add_optional_word, add_study_arguments, is_setting, study_of
from cbtrain.errors import UserError
from cbtrain.eval.report.formatting import fixed, span

if TYPE_CHECKING:
    from rich.console import Console

    from cbtrain.eval.trained_rater.rater import TrainedRater

FILE = Path("rater.json")
FEW_PATIENTS = 10
SAMPLE = "sample"
"""The default of ``corpus.path``."""


def add(commands: Commands) -> None:
    train = add_command(
        commands,
        "train",
        _train,
        "fit an offline rater of one's own to scores that exist, and measure what it is worth",
        "It counts features of sessions and imitates whoever gave the scores; it is no judge of its own. No API is "
        "asked. Settings are key=value: corpus.* says how transcripts are read.",
    )
    add_optional_word(train, "transcripts", "the sessions that were scored", key="corpus.path")
    add_study_arguments(train, example="corpus.metadata=files.csv")
    train.add_argument(
        "--scores",
        nargs="+",
        required=True,
        metavar="TABLE",
        help="tables of scores: scores.csv, human_scores.csv, or the 2024 study's; or a folder with them",
    )
    train.add_argument("--judge", metavar="NAME", help="use the ratings of this judge only")
    train.add_argument("--rubric", help="instrument of the scores (default: the run's, or the shipped one if it fits)")
    text = "the scores are people's (default: those in human_scores.csv are)"
    train.add_argument("--people", action="store_true", help=text)
    text = f"the rater; its validation stands in it, too (default: {FILE})"
    train.add_argument("--out", type=Path, default=FILE, metavar="FILE", help=text)


def _train(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.study.evaluation.train_rater import Wanted, rubric_beside, train_rater

    # Settings behind the tables are taken for tables by argparse.
    parsed.settings += [word for word in parsed.scores if is_setting(word)]
    tables = [Path(word).expanduser() for word in parsed.scores if not is_setting(word)]
    if not tables:
        raise UserError("no table of scores named", where="--scores", hint="Name a scores.csv.")
    config = study_of(parsed)
    if config.corpus.path == SAMPLE and parsed.transcripts is None:
        raise UserError("no transcripts named", where="judge train", hint="Name the sessions that were scored.")
    console, wanted = Console(), Wanted(parsed.judge, parsed.rubric, parsed.people)
    rater = train_rater(config, tables, wanted, parsed.out, console)
    _show(rater, console)
    made = rubric_beside(parsed.out)
    lines = [f"rater: {parsed.out}", *([f"its items and scale: {made}"] if made.exists() else [])]
    console.print("\n" + "\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _show(rater: TrainedRater, console: Console) -> None:
    from rich import box
    from rich.table import Table

    from cbtrain.eval.trained_rater.validation import LEFT_OUT, PREDICTORS, TOTAL

    content = rater.content
    rows = {(row["score"], row["predictor"]): row for row in content.validation}
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("rank correlation: total")
    for column in ("sessions", "all", "95 % interval", "within arms"):
        table.add_column(column, justify="right")
    for name, words in PREDICTORS.items():
        if row := rows.get((TOTAL, name)):
            numbers = (fixed(row["r"]), span(row["ci_low"], row["ci_high"]), fixed(row["within_arms"]))
            table.add_row(words, f"{row['sessions']:,}", *numbers)
    console.print()
    console.print(table)
    calibration = [
        f"{PREDICTORS[name]} R² {fixed(row['r2'])}, slope {fixed(row['slope'])}"
        for name in LEFT_OUT
        if (row := rows.get((TOTAL, name)))
    ]
    _tell([f"calibration: {'; '.join(calibration)}"], console)
    shown = [name for name in ("patients", "arms", "length", "cue") if (TOTAL, name) in rows]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("and with each item (within arms)")
    for name in shown:
        table.add_column({"patients": "patients left out", "arms": "arms left out"}.get(name, name), justify="right")
    for item in content.items:
        cells = [rows[item.id, name] for name in shown]
        table.add_row(item.name, *(f"{fixed(cell['r'])} ({fixed(cell['within_arms'])})" for cell in cells))
    console.print()
    console.print(table)
    notes = ["Arms are easier to tell apart than sessions of one arm: `within arms` is the harder figure."]
    if content.fitted_to.patients < FEW_PATIENTS:
        notes.append(f"The intervals are from {content.fitted_to.patients} patients, too few for them to be exact.")
    _tell([*notes, rater.label], console)
    _tell([content.notice], console, "dim")


def _tell(lines: Iterable[str], console: Console, style: str | None = None) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, style=style)
