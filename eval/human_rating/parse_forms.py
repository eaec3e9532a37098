"""Read filled forms, downloads of the page or CSV files, and check every value against the key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError, nearest
from cbtrain.eval.human_rating.csv_form import BEFORE, NOT_ASKED
from cbtrain.eval.human_rating.form import RATINGS_SCHEMA, UNRATABLE
from cbtrain.eval.human_rating.key import Key, KeyForm, KeySession, KeyTraining
from cbtrain.eval.rating.csv_table import csv_table_of, number_of, read_table_text
from cbtrain.eval.rating.rubric import scale_words
from cbtrain.files import unique_json
from cbtrain.transcripts.source import validate

LONGEST_NAME = 60
LONGEST_VALUE = 40
"""Characters of a wrong value that are shown."""


@dataclass(slots=True)
class FilledSession:
    """One rater's rating of one session. ``scores`` has the rated domains, with None for "cannot be rated";
    ``evidence``: turn indices from 0, by domain."""

    session: KeySession
    scores: dict[str, float | None]
    evidence: dict[str, list[int]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class FilledForm:
    """One filled form; sessions that are missing in it, or have no score, are not rated. ``training``: sessions of the
    training set. ``notes``: what was guessed where it was read."""

    path: Path
    form: KeyForm
    rater: str
    sessions: list[FilledSession]
    training: list[FilledSession] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Rating(_Strict):
    score: int | float | str | None = None
    evidence: list[int] = Field(default_factory=list)


class _Session(_Strict):
    code: str
    ratings: dict[str, _Rating]
    note: str = ""


class _Training(_Session):
    seen: bool = False


class _Ratings(_Strict):
    form: str
    rater: str
    training: list[_Training] = Field(default_factory=list)
    sessions: list[_Session]


def parse_form(path: Path, key: Key, rater: str | None = None) -> FilledForm:
    """Return one filled form; ``rater`` replaces the name in it. Raises UserError if anything does not fit the key:
    form, codes, doubles, domains, points of the scale, turns, the rater's name."""
    text, notes = _text(path)
    if text.lstrip().startswith("{"):
        parsed = _parse_download(text, path, key)
    elif text.lstrip()[:1] == "<":
        hint = 'Open it in a browser and name the file that "Download my ratings" gives.'
        raise UserError("a web page, not ratings", where=path, hint=hint)
    else:
        parsed = _parse_csv(text, path, key)
    form, name, sessions = parsed
    seen: set[str] = set()
    for filled in sessions:
        if filled.session.code in seen:
            raise UserError(f"session {filled.session.code} comes twice", where=path, hint="Remove one of the two.")
        seen.add(filled.session.code)
    name = _name(name if rater is None else rater, path if rater is None else "--rater")
    training = [filled for filled in sessions if isinstance(filled.session, KeyTraining)]
    rated = [filled for filled in sessions if not isinstance(filled.session, KeyTraining)]
    return FilledForm(path, form, name, rated, training, notes)


def _text(path: Path) -> tuple[str, list[str]]:
    text, notes = read_table_text(path)
    if not text.strip():
        raise UserError("empty", where=path, hint='Name what "Download my ratings" gave, or the filled ratings.csv.')
    return text, notes


def _parse_download(text: str, path: Path, key: Key) -> tuple[KeyForm, str, list[FilledSession]]:
    hint = 'Name the file that "Download my ratings" gave, unchanged.'
    try:
        content: Any = unique_json(text)
    except ValueError as error:
        raise UserError(f"malformed JSON ({error})", where=path, hint=hint) from None
    if content.pop("schema", None) != RATINGS_SCHEMA:
        raise UserError("not the ratings of a form", where=path, hint=hint)
    given = validate(_Ratings, content, path, hint)
    form = _form(given.form, key, path)
    sessions = []
    for rated in (*given.training, *given.sessions):
        where = f"{path}: session {rated.code}"
        filled = FilledSession(_session(rated.code, form, key, path), {}, note=rated.note.strip())
        for domain, rating in rated.ratings.items():
            if domain not in key.rubric.domains:
                raise UserError(f"no such domain {domain!r}", where=where, hint=nearest(domain, key.rubric.domains))
            if domain not in (filled.session.domains or key.rubric.domains):
                raise UserError(f"domain {domain!r} was not to be rated here", where=where, hint=hint)
            if rating.score is not None:
                filled.scores[domain] = _point(rating.score, key, f"{where}, {domain}")
            filled.evidence[domain] = _turns(rating.evidence, filled.session.turns, f"{where}, {domain}")
        sessions.append(filled)
    return form, given.rater, sessions


def _parse_csv(text: str, path: Path, key: Key) -> tuple[KeyForm, str, list[FilledSession]]:
    rows = _rows(text, path, (*BEFORE, *key.rubric.domains, "note"))
    where, first = rows[0]
    form = _form(first["form"], key, where)
    name, sessions = "", []
    for where, row in rows:
        if row["form"] != form.id:
            hint = "Give each rater's form a file of its own."
            raise UserError(f"form {row['form']!r} among rows of form {form.id}", where=where, hint=hint)
        if row["rater"] and name and row["rater"] != name:
            hint = "One form has one rater; the first row's name is enough."
            raise UserError(f"two raters, {name!r} and {row['rater']!r}", where=where, hint=hint)
        name = name or row["rater"]
        session = _session(row["session"], form, key, where)
        asked = session.domains or key.rubric.domains
        scores = {}
        for domain in key.rubric.domains:
            if domain in asked and row[domain]:
                scores[domain] = _point(row[domain], key, f"{where}, {domain}")
            elif row[domain] and row[domain] != NOT_ASKED:
                hint = f"Leave {NOT_ASKED!r} where raters agree."
                raise UserError(f"domain {domain!r} was not to be rated here", where=where, hint=hint)
        sessions.append(FilledSession(session, scores, note=row["note"]))
    return form, name, sessions


def _rows(text: str, path: Path, columns: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """Return the rows that hold anything, each with its file and line. Raises UserError if columns are not the
    form's."""
    hint = "Fill in the ratings.csv that `cbtrain rate export` wrote and leave its columns as they are."
    table = csv_table_of(text, path, columns, pad=True)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"column {missing[0]!r} is missing", where=path, hint=hint)
    others = [name for name in table.columns if name not in columns]
    if others:
        raise UserError(f"column {others[0]!r} is not a column of the form", where=path, hint=hint)
    if not table.rows:
        raise UserError("it has no sessions", where=path, hint=hint)
    return [(f"{path}:{line}", row) for line, row in table.rows]


def _form(name: str, key: Key, where: object) -> KeyForm:
    for form in key.forms:
        if form.id == name:
            return form
    form_ids = ", ".join(form.id for form in key.forms)
    hint = f"Its forms are {form_ids}; take the key that was made with the form."
    raise UserError(f"form {name!r} does not belong to this key", where=where, hint=hint)


def _session(code: str, form: KeyForm, key: Key, where: object) -> KeySession:
    for session in (*key.training, *form.sessions):
        if session.code == code:
            return session
    other_ids = [other_form.id for other_form in key.forms if code in (session.code for session in other_form.sessions)]
    hint = (
        f"It belongs to form {other_ids[0]}: correct the column form." if other_ids else "Leave the codes as they were."
    )
    raise UserError(f"form {form.id} has no session {code!r}", where=where, hint=hint)


def _point(value: int | float | str, key: Key, where: object) -> float | None:
    """Return a point of the scale, or None for "cannot be rated"."""
    if isinstance(value, str) and value.casefold() == UNRATABLE:
        return None
    point = number_of(value.replace(",", ".")) if isinstance(value, str) else value
    if point is None or point not in key.rubric.points:
        words = scale_words(key.rubric.minimum, key.rubric.maximum, key.rubric.step)
        kind = (
            "a whole number from" if all(isinstance(one, int) for one in key.rubric.points) else "a point of the scale,"
        )
        hint = f"Give {kind} {words}, {UNRATABLE} if it cannot be rated, or nothing."
        text = repr(value)
        text = text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
        raise UserError(f"{text} is not a point of the scale", where=where, hint=hint)
    return float(point)


def _turns(numbers: list[int], turns: int, where: object) -> list[int]:
    for number in numbers:
        if not 1 <= number <= turns:
            raise UserError(f"there is no turn {number}", where=where, hint=f"Its turns are 1 to {turns}.")
    return sorted({number - 1 for number in numbers})


def _name(name: str, where: object) -> str:
    name = " ".join(name.split())
    if not name:
        raise UserError("the rater's name is missing", where=where, hint="Give it with --rater NAME.")
    if len(name) > LONGEST_NAME or not name.isprintable():
        what = f"{name[:LONGEST_NAME]!r} is not a name of at most {LONGEST_NAME} printable characters"
        raise UserError(what, where=where, hint="Give a shorter one with --rater NAME.")
    return name
