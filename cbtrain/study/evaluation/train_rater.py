"""Fit a rater to scores that exist, and measure how well it ranks what its fit has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.eval.analysis.agreement.severity import session_means
from cbtrain.eval.analysis.ratings import Ratings, join_ratings, one_judge
from cbtrain.eval.analysis.score_tables import AUTHORS_ITEMS, read_ratings
from cbtrain.eval.analysis.sessions import Key
from cbtrain.eval.human_rating.import_forms import TABLE
from cbtrain.eval.rating.csv_table import read_csv_table
from cbtrain.eval.rating.cue_rater import rate
from cbtrain.eval.rating.people import PERSON
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.rubric_files import load_rubric, write_rubric
from cbtrain.eval.rating.scores import FIXED
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.trained_rater.examples import Examples, Instrument
from cbtrain.eval.trained_rater.features import features_of, names_for
from cbtrain.eval.trained_rater.rater import TrainedRater, fit_rater
from cbtrain.eval.trained_rater.rater_file import FittedTo, read_content, write_content
from cbtrain.eval.trained_rater.validation import validate
from cbtrain.study.evaluation.join_scores import ids_in, join_scores
from cbtrain.study.evaluation.rate import read_records
from cbtrain.study.evaluation.scores import rubric_of_run, tables_in
from cbtrain.study.run_files import rubric_beside as kept_beside
from cbtrain.text.language import UNKNOWN, frequent, language_of

LEAST_SESSIONS, LEAST_PATIENTS = 20, 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """``judge``: whose ratings to take, of several; ``rubric``: the instrument of the scores, None for the run's or the
    shipped one; ``people``: the scores are people's, though their table is not called ``human_scores.csv``."""

    judge: str | None = None
    rubric: str | None = None
    people: bool = False


@dataclass(frozen=True, slots=True)
class _Given:
    """Ratings with their instrument. ``listed``: that is a list of items and a scale only, made from the table."""

    ratings: Ratings
    rubric: Rubric
    listed: bool
    kind: Literal["machine", "people"]


def train_rater(
    config: StudyConfig, paths: Sequence[Path], wanted: Wanted, out: Path, console: Console
) -> TrainedRater:
    """Fit a rater to the scores at ``paths`` (tables, or folders with them) of the sessions in ``config.corpus``; write
    it to ``out``. Print what was left out. Raises UserError on what cannot be used."""
    _refuse_other_file(out)
    files = [file for path in paths for file in tables_in(path)]
    where = ", ".join(map(str, files))
    given = _read(_rubric_for(files[0]), files, wanted)
    joined, notes = join_scores(given.ratings, ids_in(files, given.rubric.keying), read_records(config, console))
    scores = _scores(given, where)
    sessions = {key: session for key, session in joined.items() if key in scores}
    if lacking := len(joined) - len(sessions):
        notes.append(f"left out: {counted(lacking, 'session')} without a score in every item")
    sessions, languages, more = _usable(sessions)
    for note in [*given.ratings.notes, *notes, *more]:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    patients = {patient for _, patient, _ in sessions}
    if len(sessions) < LEAST_SESSIONS or len(patients) < LEAST_PATIENTS:
        who = f"{counted(len(sessions), 'scored session')} of {counted(len(patients), 'patient')}"
        hint = f"At least {LEAST_SESSIONS} sessions of {LEAST_PATIENTS} patients are needed."
        raise UserError(f"{who} with transcripts are too few to fit a rater", where=where, hint=hint)
    examples = _examples(sessions, scores, languages, _cue_rubric(given), console)
    instrument = _instrument(given)
    fitted_to = FittedTo(
        kind=given.kind,
        judges=given.ratings.judges,
        sessions=len(examples),
        patients=len(patients),
        arms=len(set(examples.arm.tolist())),
        languages=list(languages),
    )
    with console.status("fit and validate"):
        rater = fit_rater(examples, instrument, fitted_to, validate(examples, instrument))
    write_content(rater.content, out)
    if given.listed:
        write_rubric(given.rubric, rubric_beside(out))
    return rater


def rubric_beside(out: Path) -> Path:
    """Return where the items and scale of a table that has no rubric are written as one."""
    return out.with_suffix(".rubric.yaml")


def _refuse_other_file(out: Path) -> None:
    """Raise UserError if ``out`` is there and no trained rater, which may be replaced."""
    if out.exists():
        try:
            read_content(out)
        except UserError:
            hint = "Name another file with --out."
            raise UserError("exists, and is no trained rater", where=out, hint=hint) from None


def _rubric_for(table: Path) -> str | None:
    """Return the rubric that is kept beside ``table``, if it has the table's items; else that of the run; None if there
    is neither."""
    kept = kept_beside(table)
    if kept.is_file() and set(load_rubric(str(kept)).ids) <= set(read_csv_table(table, FIXED).columns):
        return str(kept)
    return rubric_of_run(table.parent)


def _read(rubric_name: str | None, files: Sequence[Path], wanted: Wanted) -> _Given:
    """Return the ratings, of one judge if that is wanted, with their instrument. ``rubric_name``: of the run."""
    name = wanted.rubric or rubric_name
    rubric = load_rubric(name) if name else None
    where = ", ".join(map(str, files))
    tables = [read_ratings(file, rubric) for file in files]
    ratings = join_ratings(tables, where)
    if wanted.judge is not None:
        ratings = one_judge(ratings, wanted.judge, where)
    people = {judge for file, table in zip(files, tables, strict=True) if file.name == TABLE for judge in table.judges}
    machines = {judge for judge in ratings.judges if judge not in people and not judge.startswith(PERSON)}
    if machines and not wanted.people and machines < set(ratings.judges):
        hint = f"Name one of them with --judge ({', '.join(ratings.judges)}), or one table."
        raise UserError("scores of people and of machines together", where=where, hint=hint)
    kind: Literal["machine", "people"] = "machine" if machines and not wanted.people else "people"
    if rubric is None and set(ratings.item_names) == set(load_rubric().ids):
        rubric = load_rubric()
    if rubric is not None:
        return _Given(ratings, rubric, False, kind)
    if ratings.scale is None:
        hint = "Name the rubric by which they were given (--rubric)."
        raise UserError("the instrument of the scores is not known", where=where, hint=hint)
    scale = ratings.scale
    content = {"minimum": scale.low, "maximum": scale.high, "step": scale.step, "note": "Names and scale only."}
    domains = [{"name": item} for item in ratings.item_names]
    listed = Rubric.model_validate({"name": scale.name, **content, "domains": domains})
    return _Given(ratings, listed, True, kind)


def _instrument(given: _Given) -> Instrument:
    rubric = given.rubric
    names = {domain.id: domain.name for domain in rubric.domains}
    items = rubric.ids if given.listed else given.ratings.item_names
    return Instrument(
        name=rubric.name,
        digest=rubric.digest,
        items=tuple(items),
        names=tuple(names[item] for item in items),
        low=float(rubric.minimum),
        high=float(rubric.maximum),
        keying=rubric.keying,
    )


def _scores(given: _Given, where: str) -> dict[Key, list[float]]:
    """Return the scores of each session that has one in every item, as raters give them (reversed items are turned
    back): means over repeats and judges, whose severity is subtracted where not all rated all. Raises UserError if
    judges cannot be compared."""
    ratings = given.ratings.only(np.isfinite(given.ratings.total))
    turned = given.rubric.keying.turned
    by_item = []
    for item, column in zip(ratings.item_names, ratings.items.T, strict=True):
        values = session_means(ratings, turned[item] - column if item in turned else column)
        if len(ratings) and not values:
            hint = f"Name one with --judge: {', '.join(ratings.judges)}."
            raise UserError("the judges share too few sessions to be averaged", where=where, hint=hint)
        by_item.append(values)
    return {key: [values[key] for values in by_item] for key in by_item[0]}


def _usable(
    sessions: Mapping[Key, SimulatedSession],
) -> tuple[dict[Key, SimulatedSession], list[str], list[str]]:
    """Return the sessions that can be rated, their languages, and notes on the others. A language counts if a tenth of
    the sessions are in it."""
    spoken = {key: session for key, session in sessions.items() if not why_unratable(session.turns)}
    language = {key: language_of("\n".join(turn.text for turn in session.turns)) for key, session in spoken.items()}
    languages = frequent(language.values())
    kept = {key: session for key, session in spoken.items() if language[key] in (UNKNOWN, *languages)}
    notes = []
    if silent := len(sessions) - len(spoken):
        notes.append(f"left out: {counted(silent, 'session')} in which a speaker says nothing")
    if other := len(spoken) - len(kept):
        notes.append(f"left out: {counted(other, 'session')} in languages of less than a tenth of the sessions")
    return kept, languages, notes


def _cue_rubric(given: _Given) -> Rubric | None:
    """Return a rubric with cues for each item, in the items' order; None if there is none. The eleven items of the 2024
    study's table are those of the shipped rubric, by number."""
    rubric = load_rubric() if given.ratings.item_names == AUTHORS_ITEMS else given.rubric
    return rubric if all(domain.cues for domain in rubric.domains) else None


def _examples(
    sessions: Mapping[Key, SimulatedSession],
    scores: Mapping[Key, Sequence[float]],
    languages: Sequence[str],
    cues: Rubric | None,
    console: Console,
) -> Examples:
    """Count the features of ``sessions``, and rate them by ``cues`` if there are any."""
    names = names_for(languages)
    features, of_cues = [], []
    for session in track(sessions.values(), "count", console=console, disable=not console.is_terminal):
        features.append(features_of(session.turns, names))
        if cues is not None:
            rated = rate(session, cues).domains
            of_cues.append([np.nan if (value := rated[item]) is None else value for item in rated])
    return Examples(
        features=np.array(features),
        names=names,
        turns=np.array([len(session.turns) for session in sessions.values()]),
        arm=np.array([arm for arm, _, _ in sessions]),
        patient=np.array([patient for _, patient, _ in sessions]),
        scores=np.array([scores[key] for key in sessions], dtype=np.float64),
        cue=np.array(of_cues, dtype=np.float64) if cues is not None else None,
        languages=tuple(languages),
    )
