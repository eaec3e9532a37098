"""Filled forms become ratings by one more judge, in a table of scores, with evidence and notes beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError
from cbtrain.eval.human_rating.key import Key
from cbtrain.eval.human_rating.parse_forms import Filled, FilledSession, read_filled
from cbtrain.eval.rating.scores import Score, Status, read_scores_csv, write_scores_csv
from cbtrain.files import write_atomic
from cbtrain.transcripts.validation import validate

TABLE = "human_scores.csv"
RECORD_SCHEMA: Final = "cbtrain.imported-forms/1"


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What one form brought: numbers of its sessions by how they were rated, and how many rows stood in for others."""

    judge: str
    form: str
    whole: int
    unratable: int
    broken_off: int
    unrated: int
    replaced: int


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")

    judge: str
    sessions: list[str]


class _Record(BaseModel):
    """Which form brought which rows: what tells a form that comes again from another one under the same name."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["cbtrain.imported-forms/1"] = Field(RECORD_SCHEMA, alias="schema")
    forms: dict[str, _Form] = Field(default_factory=dict)


def beside(table: Path, kind: str) -> Path:
    """The file beside ``table`` with its notes (``kind``: notes.jsonl) or the forms that it holds (forms.json)."""
    return table.with_name(f"{table.stem.removesuffix('_scores')}_{kind}")


def import_forms(paths: Sequence[Path], key: Key, table: Path, rater: str | None = None) -> list[ImportSummary]:
    """Add the ratings of the filled forms at ``paths`` to ``table`` (made if need be), the judge ``human: NAME``.

    A form that comes again takes the place of its own rows, and of no others. Raises UserError on a form that does not
    fit the key (see :func:`read_filled`), one that has nothing rated, and on whatever would overwrite other ratings;
    nothing is written then.
    """
    if rater is not None and len(paths) > 1:
        raise UserError(f"one name for {len(paths)} forms", where="--rater", hint="Bring such forms back one by one.")
    forms = [read_filled(path, key, rater) for path in paths]
    _refuse_doubles(forms)
    notes, record = beside(table, "notes.jsonl"), beside(table, "forms.json")
    scores = read_scores_csv(table) if table.exists() else []
    noted, brought_before = _read_notes(notes), _read_record(record)
    brought = []
    for form in forms:
        judge = f"human: {form.rater}"
        new = [_score(session, judge, key) for session in form.sessions if session.scores]
        if not new:
            raise UserError("no session is rated in it", where=form.path, hint="Leave it out.")
        before = brought_before.forms.get(form.form.id, _Form(judge=judge, sessions=[]))
        if before.judge != judge:
            hint = f"A form has one rater. If it is the same person: --rater {before.judge.removeprefix('human: ')!r}."
            raise UserError(f"form {form.form.id} was brought in as {before.judge!r}", where=form.path, hint=hint)
        old = {(judge, session) for session in before.sessions}
        kept = [score for score in scores if (score.judge, score.session_id) not in old]
        _refuse_clashes(new, kept, key, table, form.path)
        brought.append(_told(form, new, judge, len(scores) - len(kept)))
        scores = [*kept, *new]
        noted = [note for note in noted if (note.get("judge"), note.get("session_id")) not in old]
        noted += [asdict(score) for score in new]
        brought_before.forms[form.form.id] = _Form(judge=judge, sessions=[score.session_id for score in new])
    # The table comes last: whatever stops this in between, the same command again makes it whole.
    write_atomic(notes, "".join(json.dumps(note, ensure_ascii=False) + "\n" for note in noted))
    write_atomic(record, json.dumps(brought_before.model_dump(by_alias=True), indent=1, ensure_ascii=False) + "\n")
    write_scores_csv(scores, table)
    return brought


def _score(filled: FilledSession, judge: str, key: Key) -> Score:
    """A rating with what the rater said and gaps for the rest. One that breaks off is ``truncated``, as an LLM's
    answer is that ends too early: it was valid as far as it went, and nobody found that the rest cannot be rated."""
    domains = key.rubric.domains
    missing = [domain for domain in domains if domain not in filled.scores]
    values = {domain: filled.scores.get(domain) for domain in domains}
    status: Status = "truncated" if missing else "unratable" if None in values.values() else "ok"
    session = filled.session
    return Score(
        session.session_id,
        session.arm,
        session.patient,
        session.seed,
        judge,
        0,
        status,
        values,
        evidence={domain: turns for domain, turns in filled.evidence.items() if turns},
        reason={"note": filled.note} if filled.note else {},
        stopped_at=missing[0] if missing else "",
    )


def _told(form: Filled, scores: Sequence[Score], judge: str, replaced: int) -> ImportSummary:
    counts = {status: sum(score.status == status for score in scores) for status in ("ok", "unratable", "truncated")}
    unrated = len(form.form.sessions) - len(scores)
    return ImportSummary(judge, form.form.id, counts["ok"], counts["unratable"], counts["truncated"], unrated, replaced)


def _refuse_doubles(forms: Sequence[Filled]) -> None:
    seen: dict[str, Path] = {}
    for form in forms:
        if form.form.id in seen:
            what = f"form {form.form.id} is in {seen[form.form.id]} too"
            raise UserError(what, where=form.path, hint="Name the one that counts.")
        seen[form.form.id] = form.path


def _refuse_clashes(new: Sequence[Score], kept: Sequence[Score], key: Key, table: Path, path: Path) -> None:
    """Refuse a table that belongs to something else, and ratings that would stand beside the same judge's own."""
    if kept and sorted(kept[0].domains) != sorted(key.rubric.domains):
        hint = "Choose another --out: ratings on different scales do not belong in one table."
        raise UserError("its domains are not those of the forms", where=table, hint=hint)
    coming = {score.session_id: score for score in new}
    for score in kept:
        same = coming.get(score.session_id)
        if same is None:
            continue
        if (score.arm, score.patient, score.seed) != (same.arm, same.patient, same.seed):
            hint = "Choose another --out: it is a table of other sessions."
            raise UserError(
                f"session {score.session_id} has another arm, patient or seed there", where=table, hint=hint
            )
        if score.judge == same.judge:
            what = f"{table} has a rating of {score.session_id} by {score.judge!r} that this form did not bring"
            hint = "If it is somebody else of that name, give another with --rater NAME."
            raise UserError(what, where=path, hint=hint)


def _read_notes(path: Path) -> list[dict[str, Any]]:
    found = []
    for line, text in enumerate(_lines(path), 1):
        try:
            note = json.loads(text)
        except ValueError:
            note = None
        if not isinstance(note, dict):
            raise UserError("malformed", where=f"{path}:{line}", hint="Mend or remove the line.")
        found.append(note)
    return found


def _read_record(path: Path) -> _Record:
    hint = "Correct it, or remove it together with the human ratings that it tells of."
    text = "\n".join(_lines(path))
    if not text:
        return _Record()
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"malformed JSON ({error})", where=path, hint=hint) from None
    if not isinstance(content, dict):
        raise UserError("no record of forms", where=path, hint=hint)
    return validate(_Record, content, path, hint)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 ({error})", where=path, hint="Mend or remove it.") from None
