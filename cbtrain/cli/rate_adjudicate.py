"""``cbtrain rate adjudicate``: find large differences between people, and write a form that settles them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cbtrain
from cbtrain.cli.parser import Commands, add_command
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from cbtrain.eval.human_rating.adjudication import Dispute
    from cbtrain.eval.rating.rubric import Rubric
    from cbtrain.eval.rating.scores import Score

MOST_SHOWN = 60
"""Lines of the table in the terminal."""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "rate adjudicate",
        _adjudicate,
        "list the scores on which two people differ by much, and write a form for settling them",
        "Nothing is changed: the form comes back by `cbtrain rate import`, which adds the judge 'human: adjudicated' "
        "(settled scores; the mean over people where they agree). The raters' own scores stay.",
    )
    parser.add_argument("scores", type=Path, metavar="RUN", help="a run folder, or a table of people's scores (CSV)")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="POINTS",
        help="differences above it are large (default: a sixth of the scale's range, at least one step)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to make for the form (default: list only)")
    parser.add_argument("--show", action="store_true", help="show the earlier scores in the form, without names")
    parser.add_argument("--again", action="store_true", help="also ask for scores that were settled by an earlier form")
    parser.add_argument("--rubric", metavar="NAME", help="instrument (default: the run's, or the shipped one)")
    parser.add_argument(
        "--transcripts", type=Path, metavar="PATH", help="the sessions (default: sessions.jsonl beside the scores)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the order and the codes (default: 0)")


def _adjudicate(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.eval.human_rating.adjudication import (
        SETTLED_FILE,
        default_threshold,
        disputes,
        raters_of,
        read_settled,
    )
    from cbtrain.eval.human_rating.import_forms import TABLE
    from cbtrain.eval.human_rating.notes import companion_file
    from cbtrain.eval.rating.scores import read_scores_csv

    table = parsed.scores / TABLE if parsed.scores.is_dir() else parsed.scores
    if not table.is_file():
        hint = "`cbtrain rate import` makes it from the raters' forms." if parsed.scores.is_dir() else "Name a table."
        raise UserError("no scores by people", where=table, hint=hint)
    name, rubric = _rubric(parsed.rubric, table)
    scores = read_scores_csv(table, rubric.keying)
    _refuse_other_domains(scores, rubric, table)
    people = raters_of(scores)
    if len(people) < 2:
        raise UserError(f"one rater only ({', '.join(people)})", where=table, hint="Two people must have rated.")
    threshold = parsed.threshold
    if threshold is None:
        threshold = default_threshold(rubric.minimum, rubric.maximum, rubric.step)
    elif not 0 <= threshold < rubric.maximum - rubric.minimum:
        hint = f"From 0 to below {rubric.maximum - rubric.minimum:g}."
        raise UserError(f"{threshold:g} points is no difference on this scale", where="--threshold", hint=hint)
    found = disputes(scores, threshold)
    settled = {(one.session_id, one.domain) for one in read_settled(companion_file(table, SETTLED_FILE))}
    open_ = found if parsed.again else _without(found, settled)
    console = Console()
    _tell(open_, len(found) - len(open_), scores, people, threshold, rubric, console)
    if parsed.out and open_:
        key = _write(open_, table, name, rubric, threshold, parsed)
        _say(console, f"\nform: {parsed.out / 'adjudicator'} (for one more rater, or a meeting of the raters)")
        _say(console, f"KEEP TO YOURSELF: {key} (it breaks the blinding)")
        _say(console, f"next: cbtrain rate import RATINGS --key {key}")
    elif open_:
        _say(console, "\na form that asks for these scores: add --out DIR")
    console.print(cbtrain.NOTICE, style="dim", highlight=False, markup=False)


def _rubric(named: str | None, table: Path) -> tuple[str, Rubric]:
    from cbtrain.cli.rate_export import DEFAULT_RUBRIC
    from cbtrain.eval.rating.rubric_files import load_rubric
    from cbtrain.study.evaluation.scores import rubric_for

    name = named or rubric_for(table) or DEFAULT_RUBRIC
    return name, load_rubric(name)


def _refuse_other_domains(scores: Sequence[Score], rubric: Rubric, table: Path) -> None:
    if not scores:
        raise UserError("the table has no ratings", where=table, hint="Name a table that has rows.")
    if set(scores[0].domains) != set(rubric.ids):
        hint = "Name the rubric by which they were rated with --rubric."
        raise UserError(f"its domains are not those of {rubric.name}", where=table, hint=hint)


def _without(found: Sequence[Dispute], settled: set[tuple[str, str]]) -> list[Dispute]:
    """Return ``found`` without the scores that are settled."""
    from dataclasses import replace

    left = []
    for dispute in found:
        said = {name: by for name, by in dispute.said.items() if (dispute.first.session_id, name) not in settled}
        left += [replace(dispute, said=said)] if said else []
    return left


def _tell(
    found: Sequence[Dispute],
    settled: int,
    scores: Sequence[Score],
    people: Sequence[str],
    threshold: float,
    rubric: Rubric,
    console: Console,
) -> None:
    from cbtrain.console import table_of
    from cbtrain.eval.human_rating.adjudication import largest_difference
    from cbtrain.eval.human_rating.csv_form import point_words

    raters = Counter(score.session_id for score in scores if score.judge in people)
    several = sum(count > 1 for count in raters.values())
    count = sum(len(dispute.said) for dispute in found)
    concerned = f"{count} of {several * len(rubric.domains)} scores, in {len(found)} of {several} sessions"
    points = f"{threshold:g} point{'' if threshold == 1 else 's'}"
    text = f"{concerned} that two or more of {', '.join(people)} rated, differ by more than {points}"
    _say(console, text + " (or one of them found that it cannot be rated)")
    if settled:
        _say(console, f"settled already: all such scores of {settled} sessions; --again asks for them too")
    if not found:
        _say(console, "nothing to settle")
        return
    names = {domain.id: domain.name for domain in rubric.domains}
    table = table_of("session", "domain", "scores", "difference", words=1)
    rows = [(dispute.first.session_id, name, by) for dispute in found for name, by in dispute.said.items()]
    for session, name, by_person in rows[:MOST_SHOWN]:
        said = ", ".join(f"{judge.removeprefix('human: ')} {point_words(score)}" for judge, score in by_person.items())
        difference = largest_difference(by_person)
        table.add_row(session, names[name], said, "" if difference is None else f"{difference:g}")
    console.print()
    console.print(table, highlight=False, markup=False)
    if len(rows) > MOST_SHOWN:
        _say(console, f"and {len(rows) - MOST_SHOWN} more")


def _write(
    found: Sequence[Dispute], table: Path, name: str, rubric: Rubric, threshold: float, parsed: argparse.Namespace
) -> Path:
    """Write the form, and return the path of its key."""
    from cbtrain.cli.rate_export import transcripts_at
    from cbtrain.eval.human_rating.export import FormsOrigin
    from cbtrain.eval.human_rating.export_adjudication import AdjudicationSettings, write_adjudication
    from cbtrain.eval.human_rating.notes import companion_file, read_notes
    from cbtrain.study.evaluation.scores import is_run
    from cbtrain.study.run_files import TRANSCRIPTS

    path = parsed.transcripts or table.parent / TRANSCRIPTS
    if not path.exists():
        raise UserError("no transcripts of these sessions", where=path, hint="Name them with --transcripts.")
    sessions = {session.id: session for session in transcripts_at(path)}
    missing = [one.first.session_id for one in found if one.first.session_id not in sessions]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = "Name their transcripts with --transcripts."
        raise UserError(f"not among the transcripts: session {missing[0]!r}{more}", where=path, hint=hint)
    notes = read_notes(companion_file(table, "notes.jsonl"))
    evidence = {(note["session_id"], note["judge"]): note["evidence"] for note in notes}
    run = table.parent.resolve() if is_run(table.parent) else None
    origin = FormsOrigin(str(path.resolve()), run, name)
    settings = AdjudicationSettings(table, threshold, parsed.show, parsed.seed)
    return write_adjudication(found, sessions, rubric, parsed.out, origin, settings, evidence)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
