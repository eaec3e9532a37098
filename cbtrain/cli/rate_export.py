"""``cbtrain rate export``: write blind forms for human raters, and say what each rater has to do."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cbtrain
from cbtrain.cli.corpus_reading import config_of
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cbtrain.eval.human_rating.assignment import Assignment, AssignmentSettings
    from cbtrain.eval.human_rating.export import Exported
    from cbtrain.eval.human_rating.form import TrainingSession
    from cbtrain.eval.rating.rubric import Rubric
    from cbtrain.eval.simulation.runner import SimulatedSession

DEFAULT_RUBRIC = "cbt_fidelity"


def export_forms(parsed: argparse.Namespace) -> None:
    """Carry out ``cbtrain rate export``."""
    from rich.console import Console

    from cbtrain.eval.human_rating.export import FormsOrigin, write_forms
    from cbtrain.eval.rating.rubric_files import load_rubric
    from cbtrain.study.evaluation.scores import is_run, rubric_for
    from cbtrain.study.run_files import SCORES

    settings = _settings(parsed)
    if parsed.training_from and not parsed.training:
        raise UserError("it needs --training, the agreed scores of these sessions", where="--training-from")
    config = config_of(parsed)
    if "path" not in config.corpus.model_fields_set:
        hint = "Name a run folder or a corpus; 'sample' is the embedded one."
        raise UserError("nothing to rate is named", where="rate export", hint=hint)
    path, judging = Path(config.corpus.path), config.evaluation.judging
    run = path.resolve() if is_run(path) else None
    own = rubric_for(run / SCORES) if run and "rubric" not in judging.model_fields_set else None
    rubric_name = own or judging.rubric
    rubric = load_rubric(rubric_name)
    sessions, failures = _sessions(parsed, path, run)
    training: list[TrainingSession] = []
    if parsed.training:
        training, sessions = _training(parsed, sessions, rubric)
    source = str(path.resolve()) if path.exists() else str(path)
    exported = write_forms(sessions, rubric, parsed.out, FormsOrigin(source, run, rubric_name), settings, training)
    told = _Told(exported, sessions, failures, len(rubric.domains), training)
    _tell_export(told, parsed, settings, Console())


def _settings(parsed: argparse.Namespace) -> AssignmentSettings:
    """Return who gets how many sessions. Raises UserError on numbers that do not fit together."""
    from cbtrain.eval.human_rating.assignment import AssignmentSettings

    least_of = {"sessions": 1, "raters": 1, "overlap": 0, "seed": 0, "ratings_per_session": 1, "per_rater": 1}
    for name, least in least_of.items():
        value = getattr(parsed, name)
        if value is not None and value < least:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{value} is too small", where=option, hint=f"At least {least}.")
    workload = _workload(parsed.workload)
    if workload and parsed.per_rater is not None:
        raise UserError("it says the same as --workload", where="--per-rater", hint="Give one of the two.")
    if workload and parsed.raters not in (None, len(workload)):
        hint = "Name one number for each rater."
        raise UserError(f"{len(workload)} raters, but --raters {parsed.raters}", where="--workload", hint=hint)
    raters = len(workload) or parsed.raters or 2
    workload = workload or ((parsed.per_rater,) * raters if parsed.per_rater is not None else ())
    each = parsed.ratings_per_session
    if each is not None and each > raters:
        hint = f"At most {raters}, or raise --raters."
        raise UserError(f"{each}, but there are only {raters} raters", where="--ratings-per-session", hint=hint)
    return AssignmentSettings(parsed.sessions, raters, parsed.overlap, parsed.seed, each, workload)


def _workload(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    numbers = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 0 < int(word) < 10**6 for word in numbers):
        hint = "Give the most sessions of each rater, as 20,20,10."
        raise UserError(f"{text!r} is no list of numbers from 1", where="--workload", hint=hint)
    return tuple(map(int, numbers))


def _training(
    parsed: argparse.Namespace, sessions: list[SimulatedSession], rubric: Rubric
) -> tuple[list[TrainingSession], list[SimulatedSession]]:
    """Return the training sessions, and the others of ``sessions``; says how many are left out of these."""
    from cbtrain.eval.human_rating.training import read_agreed, training_sessions, without_training

    agreed = read_agreed(parsed.training, rubric)
    source = transcripts_at(parsed.training_from) if parsed.training_from else sessions
    training = training_sessions(agreed, source, parsed.training)
    others = without_training(sessions, training)
    if not others:
        hint = "Take fewer, or name their transcripts with --training-from."
        raise UserError("all sessions are in the training set", where=parsed.training, hint=hint)
    if left := len(sessions) - len(others):
        print(f"left out of the blind sessions: {_count(left, 'session')} of the training set", file=sys.stderr)
    return training, others


def transcripts_at(path: Path) -> list[SimulatedSession]:
    """Return the sessions of a run folder or of transcripts in any format."""
    from cbtrain.study.evaluation.scores import records
    from cbtrain.study.run_files import TRANSCRIPTS
    from cbtrain.transcripts.reading import read

    file = path / TRANSCRIPTS if (path / TRANSCRIPTS).is_file() else path
    return list(records(read(str(file)).sessions()))


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


@dataclass(frozen=True, slots=True)
class _Told:
    """What there is to say of an export: its forms, the ``sessions`` they were drawn from, the number of failed ones,
    and the number of domains."""

    exported: Exported
    sessions: Sequence[SimulatedSession]
    failures: int
    domains: int
    training: Sequence[TrainingSession]


def _tell_export(told: _Told, parsed: argparse.Namespace, settings: AssignmentSettings, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    from cbtrain.eval.human_rating.workload import SECONDS_PER_DOMAIN, WORDS_PER_MINUTE

    assignment, sessions = told.exported.assignment, told.sessions
    arms = len({session.arm for session in sessions})
    of = f" of {len(sessions)}" if assignment.drawn < len(sessions) else ""
    drawn = assignment.drawn < len(sessions) or parsed.sessions
    pairs = ", the same patients and seeds in all" if assignment.paired and arms > 1 and drawn else ""
    raters = _count(settings.raters_of_each, "rater")
    whom = f"{assignment.shared} for every rater"
    if not assignment.shared:
        whom = f"each for {raters}"
    elif assignment.shared < assignment.drawn:
        whom += f", each of the others for {raters}"
    counts = f"{_count(assignment.drawn, 'session')}{of}, {_count(arms, 'arm')}{pairs}"
    say(f"{counts}; {whom}")
    if told.training:
        say(f"{_count(len(told.training), 'training session')} first in every form")
    if parsed.sessions and assignment.drawn < parsed.sessions:
        say(f"note: {parsed.sessions} cannot be divided equally among {arms} arms, so it is {assignment.drawn}")
    if drawn and not assignment.paired:
        say("note: no patient and seed has a session in every arm, so arms are compared on different ones")
    if told.failures:
        say(f"note: {_count(told.failures, 'session')} failed and cannot be rated")
    console.print()
    console.print(_table(told), highlight=False, markup=False)
    say(
        f"minutes: an estimate, reading {WORDS_PER_MINUTE} words a minute and {SECONDS_PER_DOMAIN} seconds for each "
        "domain"
    )
    for note in _links(assignment):
        say(f"note: {note}")
    say(f"\nforms: {parsed.out}")
    say(f"KEEP TO YOURSELF: {told.exported.key} (it breaks the blinding)")
    if told.training:
        say("the raters' folders hold the agreed scores of the training, and nothing that lifts the blind")
    say(f"next: cbtrain rate import FORM… --key {told.exported.key}")
    console.print(cbtrain.NOTICE, style="dim", highlight=False, markup=False)


def _table(told: _Told) -> Table:
    """Return what each rater has to do."""
    from cbtrain.console import table_of
    from cbtrain.eval.human_rating.workload import minutes_of, words_of

    practice = [one.session for one in told.training]
    table = table_of("rater", "form", "sessions", "words", "minutes", "give them this folder", numbers=1, words=1)
    for number, (folder, form) in enumerate(told.exported.folders, 1):
        own = [*practice, *told.exported.assignment.by_rater[number - 1]]
        words = words_of(own)
        count = f"{len(practice)} + {len(own) - len(practice)}" if practice else str(len(own))
        minutes = f"{minutes_of(words, len(own), told.domains):,}"
        table.add_row(str(number), form, count, f"{words:,}", minutes, f"{folder.name}/")
    return table


def _links(assignment: Assignment) -> list[str]:
    """Return notes on how many sessions raters have in common."""
    from cbtrain.eval.analysis.agreement.severity import LEAST_COMMON
    from cbtrain.eval.human_rating.workload import common_sessions, links

    raters = len(assignment.by_rater)
    if raters < 2 or assignment.shared == assignment.drawn:
        return []
    common = common_sessions(assignment.by_rater)
    low, high = min(common.values()), max(common.values())
    notes = [f"two raters have {low if low == high else f'{low} to {high}'} sessions in common"]
    if links(raters, lambda first, second: common[first, second] > 0) > 1:
        notes.append("some raters share no session with the others: their agreement and severity cannot be compared")
    elif links(raters, lambda first, second: common[first, second] >= LEAST_COMMON) > 1:
        notes.append(
            f"to take a rater's severity out of scores, an analysis needs raters linked by {LEAST_COMMON} common "
            "sessions; with fewer, it compares arms within each rater only"
        )
    return notes


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
