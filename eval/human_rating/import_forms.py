"""Import filled forms as ratings by one more judge, in a table of scores, with notes in a file beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError
from cbtrain.eval.human_rating.key import Key
from cbtrain.eval.human_rating.parse_forms import FilledForm, FilledSession, parse_form
from cbtrain.eval.rating.scores import ADDED_LATER, RECORDED, Score, Status, read_scores_csv, write_scores_csv
from cbtrain.files import unique_json, write_atomic, written_together
from cbtrain.transcripts.source import validate

TABLE = "human_scores.csv"
RECORD_SCHEMA: Final = "cbtrain.imported-forms/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """The import of one form: numbers of its sessions by how they were rated, and of rows that it replaced; notes on
    what was guessed where it was read."""

    judge: str
    form: str
    whole: int
    unratable: int
    broken_off: int
    unrated: int
    replaced: int
    notes: list[str]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")

    judge: str
    sessions: list[str]


class _Record(BaseModel):
    """The rows of each form. They tell a form that is imported again from another one under the same name."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["cbtrain.imported-forms/1"] = Field(RECORD_SCHEMA, alias="schema")
    forms: dict[str, _Form] = Field(default_factory=dict)


def companion_file(table: Path, kind: str) -> Path:
    """Return the file beside ``table`` with its notes (``kind``: notes.jsonl) or its forms (forms.json)."""
    return table.with_name(f"{table.stem.removesuffix('_scores')}_{kind}")


def import_forms(paths: Sequence[Path], key: Key, table: Path, rater: str | None = None) -> list[ImportSummary]:
    """Add the ratings of the filled forms at ``paths`` to ``table``, which is created if missing, as those of the judge
    ``human: NAME``.

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
    notes, record = companion_file(table, "notes.jsonl"), companion_file(table, "forms.json")
    scores = read_scores_csv(table) if table.exists() else []
    noted, imported = read_notes(notes), _read_record(record)
    summaries = []
    for form in forms:
        judge = f"human: {form.rater}"
        new = [_score(session, judge, key) for session in form.sessions if session.scores]
        if not new:
            raise UserError("no session is rated in it", where=form.path, hint="Leave it out.")
        before = imported.forms.get(form.form.id, _Form(judge=judge, sessions=[]))
        if before.judge != judge:
            hint = f"A form has one rater. If it is the same person: --rater {before.judge.removeprefix('human: ')!r}."
            raise UserError(f"form {form.form.id} was already imported as {before.judge!r}", where=form.path, hint=hint)
        old = {(judge, session) for session in before.sessions}
        kept = [score for score in scores if (score.judge, score.session_id) not in old]
        _refuse_clashes(new, kept, key, table, form.path)
        summaries.append(_summary(form, new, judge, len(scores) - len(kept)))
        scores = [*kept, *new]
        noted = [note for note in noted if (note.get("judge"), note.get("session_id")) not in old]
        noted += [score.record() for score in new]
        imported.forms[form.form.id] = _Form(judge=judge, sessions=[score.session_id for score in new])
    # The table comes last: whatever stops this in between, the same command again makes it whole.
    with written_together(table.parent) as temporary:
        write_atomic(temporary / notes.name, "".join(json.dumps(note, ensure_ascii=False) + "\n" for note in noted))
        content = json.dumps(imported.model_dump(by_alias=True), indent=1, ensure_ascii=False)
        write_atomic(temporary / record.name, content + "\n")
        write_scores_csv(scores, temporary / table.name)
    return summaries


def _score(filled: FilledSession, judge: str, key: Key) -> Score:
    """Return the rating, with gaps for domains without a score. An incomplete one is ``truncated``, like an LLM's
    answer that ends too early: nobody found that the rest cannot be rated."""
    domains = key.rubric.domains
    missing = [domain for domain in domains if domain not in filled.scores]
    values = {domain: filled.scores.get(domain) for domain in domains}
    status: Status = "truncated" if missing else "unratable" if None in values.values() else "ok"
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
    )


def _summary(form: FilledForm, scores: Sequence[Score], judge: str, replaced: int) -> ImportSummary:
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


def read_notes(path: Path) -> list[dict[str, Any]]:
    """Return the evidence and notes of people's scores, each with the fields of :class:`Score`; empty if there is no
    such file. Raises UserError on a damaged line."""
    notes = []
    names = RECORDED - set(ADDED_LATER)
    for number, line in enumerate(_lines(path), 1):
        try:
            note = unique_json(line)
        except ValueError:
            note = None
        if not (isinstance(note, dict) and names <= note.keys()):
            hint = "Restore the file from a copy, or delete it: the scores stay, without evidence and notes."
            raise UserError("damaged line", where=f"{path}:{number}", hint=hint)
        notes.append(note)
    return notes


def _read_record(path: Path) -> _Record:
    hint = "Correct it, or remove it together with its human ratings."
    text = "\n".join(_lines(path))
    if not text:
        return _Record()
    try:
        content = unique_json(text)
    except ValueError as error:
        raise UserError(f"malformed JSON ({error})", where=path, hint=hint) from None
    if not isinstance(content, dict):
        raise UserError("not a record of forms", where=path, hint=hint)
    return validate(_Record, content, path, hint)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 ({error})", where=path, hint="Save it as UTF-8, or remove it.") from None
