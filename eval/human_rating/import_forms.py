"""Import filled forms as ratings by one more judge, in a table of scores, with notes in a file beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError
from cbtrain.eval.human_rating.adjudication import (
    SETTLED_FILE,
    Settled,
    adjudicated_scores,
    read_settled,
    settled_text,
)
from cbtrain.eval.human_rating.key import Key
from cbtrain.eval.human_rating.notes import companion_file, lines_of, read_notes
from cbtrain.eval.human_rating.parse_forms import FilledForm, FilledSession, parse_form
from cbtrain.eval.human_rating.training_table import (
    TrainingResult,
    TrainingRow,
    read_training_rows,
    training_result,
    training_rows,
    training_text,
)
from cbtrain.eval.rating.people import ADJUDICATED, person
from cbtrain.eval.rating.scores import Score, read_scores_csv, status_of, write_scores_csv
from cbtrain.files import unique_json, write_atomic, written_together
from cbtrain.transcripts.source import validate

TABLE = "human_scores.csv"
RECORD_SCHEMA: Final = "cbtrain.imported-forms/1"
TRAINING_FILE = "training.csv"
"""The kind of the file beside the table that has the ratings of training sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """The import of one form: numbers of its sessions by how they were rated, and of rows that it replaced; ``settled``
    domains, if that is what it is for; how near its training came to the agreed scores; notes on what was guessed where
    it was read."""

    judge: str
    form: str
    whole: int = 0
    unratable: int = 0
    broken_off: int = 0
    unrated: int = 0
    replaced: int = 0
    settled: int = 0
    training: TrainingResult | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Imported:
    """All forms of one import. ``rated``: whether the table of scores has changed. ``adjudicated``: sessions of the
    judge ``human: adjudicated``; ``unsettled``: sessions without a row by it, since a large difference is left."""

    forms: list[ImportSummary]
    rated: bool
    adjudicated: int
    unsettled: int


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")

    judge: str
    sessions: list[str]


class _Record(BaseModel):
    """The rows of each form. They tell a form that is imported again from another one under the same name."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["cbtrain.imported-forms/1"] = Field(RECORD_SCHEMA, alias="schema")
    forms: dict[str, _Form] = Field(default_factory=dict)


def import_forms(paths: Sequence[Path], key: Key, table: Path, rater: str | None = None) -> Imported:
    """Add the ratings of the filled forms at ``paths`` to ``table``, which is created if missing, as those of the judge
    ``human: NAME``. Ratings of training sessions go into a table of their own, settled scores into another one.

    A form that is imported again replaces its own rows, and no others. Raises UserError if a form does not fit the key
    (see :func:`parse_form`), has no rating, or would overwrite other ratings; nothing is written then.
    """
    if rater is not None and len(paths) > 1:
        raise UserError(
            f"one name, but {len(paths)} forms",
            where="--rater",
            hint="Import the forms one by one.",
        )
    forms = [parse_form(path, key, rater) for path in paths]
    _refuse_doubles(forms)
    found = _Tables.read(table, key)
    summaries = [found.settle(form) if key.adjudication else found.add(form) for form in forms]
    adjudicated, unsettled = found.adjudicate()
    found.write()
    return Imported(summaries, bool(found.scores), adjudicated, unsettled)


@dataclass(slots=True)
class _Tables:
    """A table of people's scores and the files beside it."""

    table: Path
    key: Key
    scores: list[Score]
    noted: list[dict[str, Any]]
    imported: _Record
    practice: list[TrainingRow]
    settled: list[Settled]

    @classmethod
    def read(cls, table: Path, key: Key) -> _Tables:
        """Return what is there. Raises UserError if a file is damaged."""
        return cls(
            table,
            key,
            read_scores_csv(table, key.rubric.keying) if table.exists() else [],
            read_notes(companion_file(table, "notes.jsonl")),
            _read_record(companion_file(table, "forms.json")),
            read_training_rows(companion_file(table, TRAINING_FILE)),
            read_settled(companion_file(table, SETTLED_FILE)),
        )

    def add(self, form: FilledForm) -> ImportSummary:
        """Add the ratings of a form by a rater."""
        judge = person(form.rater)
        if judge == ADJUDICATED:
            hint = "Give the rater another name: --rater NAME."
            raise UserError(f"the name {form.rater!r} is that of settled scores", where=form.path, hint=hint)
        new = [_score(session, judge, self.key) for session in form.sessions if session.scores]
        practice = training_rows(form, self.key, judge)
        if not new and not practice:
            raise UserError("no session is rated in it", where=form.path, hint="Leave it out.")
        before = self.imported.forms.get(form.form.id, _Form(judge=judge, sessions=[]))
        if before.judge != judge:
            hint = f"A form has one rater. If it is the same person: --rater {before.judge.removeprefix('human: ')!r}."
            raise UserError(f"form {form.form.id} was already imported as {before.judge!r}", where=form.path, hint=hint)
        old = {(judge, session) for session in before.sessions}
        kept = [score for score in self.scores if (score.judge, score.session_id) not in old]
        _refuse_clashes(new, kept, self.key, self.table, form.path)
        replaced = len(self.scores) - len(kept)
        self.scores = [*kept, *new]
        self.noted = [note for note in self.noted if (note.get("judge"), note.get("session_id")) not in old]
        self.noted += [score.record() for score in new]
        self.practice = [row for row in self.practice if row.form != form.form.id] + practice
        self.imported.forms[form.form.id] = _Form(judge=judge, sessions=[score.session_id for score in new])
        result = training_result(practice, len(self.key.training))
        return _summary(form, new, judge, replaced, result)

    def settle(self, form: FilledForm) -> ImportSummary:
        """Add what a form of adjudication settles."""
        assert self.key.adjudication is not None
        threshold = self.key.adjudication.threshold
        before = len(self.settled)
        self.settled = [one for one in self.settled if one.form != form.form.id]
        replaced = before - len(self.settled)
        new = [
            Settled(form.form.id, form.rater, session.session.session_id, domain, score, threshold)
            for session in form.sessions
            for domain, score in session.scores.items()
        ]
        if not new:
            raise UserError("nothing is settled in it", where=form.path, hint="Leave it out.")
        places = {(one.session_id, one.domain) for one in new}
        self.settled = [one for one in self.settled if (one.session_id, one.domain) not in places] + new
        whole = sum(len(session.scores) == len(session.session.domains) for session in form.sessions)
        begun = sum(bool(session.scores) for session in form.sessions)
        return ImportSummary(
            judge=ADJUDICATED,
            form=form.form.id,
            whole=whole,
            broken_off=begun - whole,
            unrated=len(form.form.sessions) - begun,
            replaced=replaced,
            settled=len(new),
            notes=form.notes,
        )

    def adjudicate(self) -> tuple[int, int]:
        """Compute the rows of ``human: adjudicated`` anew, if anything was settled. Return how many there are, and how
        many sessions have a large difference that is not settled."""
        if not self.settled:
            return 0, 0
        given = [score for score in self.scores if score.judge != ADJUDICATED]
        made, left = adjudicated_scores(given, self.settled, self.settled[-1].threshold, self.key.rubric.keying)
        self.scores = [*given, *made]
        self.noted = [note for note in self.noted if note.get("judge") != ADJUDICATED]
        self.noted += [score.record() for score in made]
        return len(made), left

    def write(self) -> None:
        """Write all files or none. The table comes last: whatever stops this in between, the same command again makes
        it whole."""

        def place(temporary: Path, kind: str) -> Path:
            return temporary / companion_file(self.table, kind).name

        with written_together(self.table.parent) as temporary:
            lines = (json.dumps(note, ensure_ascii=False) + "\n" for note in self.noted)
            write_atomic(place(temporary, "notes.jsonl"), "".join(lines))
            content = json.dumps(self.imported.model_dump(by_alias=True), indent=1, ensure_ascii=False)
            write_atomic(place(temporary, "forms.json"), content + "\n")
            if self.practice:
                write_atomic(place(temporary, TRAINING_FILE), training_text(self.practice))
            if self.settled:
                write_atomic(place(temporary, SETTLED_FILE), settled_text(self.settled))
            if self.scores:
                write_scores_csv(self.scores, temporary / self.table.name)
        if not self.scores:  # a form that is imported again may have lost all its ratings
            self.table.unlink(missing_ok=True)


def _score(filled: FilledSession, judge: str, key: Key) -> Score:
    """Return the rating, with gaps for domains without a score. An incomplete one is ``truncated``, like an LLM's
    answer that ends too early: nobody found that the rest cannot be rated."""
    domains = key.rubric.domains
    missing = [domain for domain in domains if domain not in filled.scores]
    values = {domain: filled.scores.get(domain) for domain in domains}
    status = status_of(values, missing)
    session = filled.session
    return Score(
        session_id=session.session_id,
        arm=session.arm,
        patient=session.patient,
        seed=session.seed,
        judge=judge,
        repeat=0,
        status=status,
        domains=values,
        evidence={domain: turns for domain, turns in filled.evidence.items() if turns},
        reason={"note": filled.note} if filled.note else {},
        stopped_at=missing[0] if missing else "",
        number=session.session,
        simulator=session.simulator,
        columns=dict(session.columns),
        keying=key.rubric.keying,
    )


def _summary(
    form: FilledForm, scores: Sequence[Score], judge: str, replaced: int, training: TrainingResult | None
) -> ImportSummary:
    counts = {status: sum(score.status == status for score in scores) for status in ("ok", "unratable", "truncated")}
    unrated = len(form.form.sessions) - len(scores)
    return ImportSummary(
        judge=judge,
        form=form.form.id,
        whole=counts["ok"],
        unratable=counts["unratable"],
        broken_off=counts["truncated"],
        unrated=unrated,
        replaced=replaced,
        training=training,
        notes=form.notes,
    )


def _refuse_doubles(forms: Sequence[FilledForm]) -> None:
    seen: dict[str, Path] = {}
    for form in forms:
        if form.form.id in seen:
            what = f"form {form.form.id} is in {seen[form.form.id]} too"
            raise UserError(what, where=form.path, hint="Name only the right one.")
        seen[form.form.id] = form.path


def _refuse_clashes(new: Sequence[Score], kept: Sequence[Score], key: Key, table: Path, path: Path) -> None:
    """Raise UserError if ``table`` has other domains or sessions, or other ratings of a session by the same judge."""
    if kept and sorted(kept[0].domains) != sorted(key.rubric.domains):
        hint = "Choose another --out: ratings on different scales do not belong in one table."
        raise UserError("its domains are not those of the forms", where=table, hint=hint)
    coming = {score.session_id: score for score in new}
    for score in kept:
        same = coming.get(score.session_id)
        if same is None:
            continue
        if (score.arm, score.patient, score.slot) != (same.arm, same.patient, same.slot):
            hint = "Choose another --out: it is a table of other sessions."
            seed = "seed" if (score.number, score.simulator) == (same.number, same.simulator) else "place in a course"
            raise UserError(
                f"session {score.session_id} has another arm, patient or {seed} there", where=table, hint=hint
            )
        if score.judge == same.judge:
            what = f"{table} has a rating of {score.session_id} by {score.judge!r} that is not from this form"
            hint = "If that is another person, give this rater another name: --rater NAME."
            raise UserError(what, where=path, hint=hint)


def _read_record(path: Path) -> _Record:
    hint = "Correct it, or remove it together with its human ratings."
    text = "\n".join(lines_of(path))
    if not text:
        return _Record()
    try:
        content = unique_json(text)
    except ValueError as error:
        raise UserError(f"malformed JSON ({error})", where=path, hint=hint) from None
    if not isinstance(content, dict):
        raise UserError("not a record of forms", where=path, hint=hint)
    return validate(_Record, content, path, hint)
