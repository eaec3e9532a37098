"""Read scores and the sessions they are of: from a run folder, or from tables with or without their transcripts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.analysis.arms import Arm, declared_arms, with_declared
from cbtrain.eval.analysis.ratings import Ratings, join_ratings, one_judge
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.analysis.sessions import (
    ONE_ARM,
    SESSION,
    SIMULATOR,
    Key,
    SessionOutcome,
    number_of,
    seed_of,
    session_outcomes,
)
from cbtrain.eval.human_rating.digests import rubric_digest
from cbtrain.eval.human_rating.import_forms import TABLE
from cbtrain.eval.human_rating.notes import companion_file, read_notes
from cbtrain.eval.rating.course_columns import OPTIONAL, known_columns
from cbtrain.eval.rating.csv_table import read_csv_table
from cbtrain.eval.rating.keying import AS_GIVEN, Keying
from cbtrain.eval.rating.loose_table import with_columns
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.rubric_files import load_rubric, short_name
from cbtrain.eval.rating.scores import FIXED, TOTAL, Score, read_scores_csv
from cbtrain.eval.report.schema.patients import ReportPatients, read_patients_audit
from cbtrain.eval.report.schema.training import ReportAudit, read_audit
from cbtrain.eval.simulation.runner import MARKS, SimulatedSession
from cbtrain.eval.simulation.simulators import SessionBegins
from cbtrain.settings import parse_yaml
from cbtrain.study.run_files import (
    AUDIT,
    CONFIG,
    EVENTS,
    PATIENTS_AUDIT,
    RUBRIC,
    SCORES,
    TRANSCRIPTS,
    of_instrument,
    rubric_beside,
)
from cbtrain.transcripts.labels import labels_seen
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Session


@dataclass(frozen=True, slots=True)
class ScoredStudy:
    """``rubric`` is None if no instrument is known. ``run``: the run folder; None if tables were named.
    ``primary_judges``: the judges that make up the panel, empty if that is not known; ``rotating``: they took turns;
    ``only_judge``: the one judge whose ratings were asked for."""

    ratings: Ratings
    rubric: Rubric | None
    transcripts: list[Session]
    outcomes: dict[Key, SessionOutcome]
    run: Path | None
    primary_judges: list[str]
    only_judge: str | None
    rotating: bool = False

    @property
    def instrument(self) -> Rubric | None:
        """Return the rubric; where none was named, the shipped one that the table was found to fit."""
        scale, shipped = self.ratings.scale, load_rubric()
        return self.rubric or (shipped if scale and scale.name == shipped.name else None)


def load_scores(
    paths: Sequence[Path],
    *,
    rubric: str | None = None,
    judge: str | None = None,
    transcripts: Path | None = None,
    metadata: Path | None = None,
    arms: Path | None = None,
    mapping: Mapping[str, str] | None = None,
) -> ScoredStudy:
    """Read the tables at ``paths`` as one; a folder stands for its ``scores.csv`` and ``human_scores.csv``.

    The rubric is the one named, else ``rubric.yaml`` beside the first table if it has the tables' items, else that of
    the run's settings, else the shipped one if its domains are the table's.
    Transcripts are those named, with what the table ``metadata`` says of them, else ``sessions.jsonl`` in the folder of
    the first table. ``metadata`` is joined to the scores where no transcripts are named or the scores lack arm or
    patient. ``judge`` keeps one judge's ratings. ``arms``: a file that says what arms are
    (:func:`cbtrain.eval.analysis.arms.declared_arms`). ``mapping``: the tables' names of our columns. Raises UserError.
    """
    mapping = mapping or {}
    folder = paths[0] if paths[0].is_dir() else paths[0].parent
    files = [file for path in paths for file in tables_in(path)]
    columns = {file: _columns(file, mapping) for file in files}
    instrument, note = (load_rubric(rubric), "") if rubric else _rubric_of(folder, columns)
    where = ", ".join(map(str, files))
    joins = metadata is not None and (transcripts is None or any(not {"arm", "patient"} <= c for c in columns.values()))
    about = metadata if joins else None
    tables = [read_ratings(file, instrument, mapping=mapping, metadata=about) for file in files]
    ratings = join_ratings(tables, where)
    ratings = replace(ratings, notes=(*ratings.notes, note)) if note else ratings
    ratings = replace(ratings, arms=planned_arms(folder, ratings.arms))
    if arms is not None:
        ratings = replace(ratings, arms=declared_arms(ratings.arms, arms))
    # People who rated a sample do not become primary judges if a machine rated.
    by_file = zip(files, tables, strict=True)
    machine = list(dict.fromkeys(name for file, table in by_file if file.name != TABLE for name in table.judges))
    primary_judges = machine if judge is None and len(machine) < len(ratings.judges) else []
    beside, in_turns = planned_judges(folder)
    counting = [name for name in machine if name not in beside]
    rotating = in_turns and len(counting) > 1
    if judge is None and (rotating or beside & set(machine)):
        primary_judges = counting
    if judge is not None:
        ratings = one_judge(ratings, judge, where)
    default = folder / TRANSCRIPTS
    source = transcripts or (default if default.is_file() else None)
    sessions = list(read(str(source), metadata=metadata if transcripts else None).sessions()) if source else []
    outcomes = session_outcomes(sessions)
    if transcripts and not any(key[0] in ratings.arms for key in outcomes):
        there = ", ".join(sorted({key[0] for key in outcomes})[:6]) or "none"
        hint = f"Arms there: {there}; arms in the scores: {', '.join(ratings.arms)}."
        raise UserError("it has no session of a rated arm", where=transcripts, hint=hint)
    run = paths[0] if paths == [folder] else None
    return ScoredStudy(ratings, instrument, sessions, outcomes, run, primary_judges, judge, rotating and judge is None)


def planned_judges(folder: Path) -> tuple[set[str], bool]:
    """Return the judges that the settings in ``folder`` name for comparison only, and whether the others take turns."""
    evaluation = _evaluation_of(folder)
    judges = evaluation.get("judges")
    if not isinstance(judges, dict):
        return set(), False
    beside = {name for name, judge in judges.items() if isinstance(judge, dict) and judge.get("beside") is True}
    return beside, evaluation.get("allocation") == "cyclic"


def planned_arms(folder: Path, arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """Return ``arms`` with the base, variant and reference that the settings in ``folder`` give its therapists, in
    their order; as they are without such settings. Raises UserError if the file is damaged."""
    planned = _evaluation_of(folder).get("therapists")
    if not isinstance(planned, dict):
        return dict(arms)
    order = [*(name for name in planned if name in arms), *(name for name in arms if name not in planned)]
    result = {name: arms[name] for name in order}
    for name, therapist in planned.items():
        if name in result and isinstance(therapist, dict):
            base, variant, reference = (therapist.get(key) or "" for key in ("base", "variant", "reference"))
            named = reference if reference is True or reference in arms else ""
            result[name] = with_declared(result[name], str(base), str(variant), named)
    return result


def audit_of(folder: Path) -> ReportAudit | None:
    """Return what ``cbtrain judge audit`` wrote into the run folder or into its ``audit/``; None if there is nothing.
    Raises UserError if the file is damaged."""
    for path in (folder / AUDIT, folder / "audit" / AUDIT):
        if path.is_file():
            return read_audit(path)
    return None


def patients_audit_of(folder: Path) -> ReportPatients | None:
    """Return what ``cbtrain patients audit`` wrote into the run folder or into its ``patients_audit/``; None if there
    is nothing. Raises UserError if the file is damaged."""
    for path in (folder / PATIENTS_AUDIT, folder / "patients_audit" / PATIENTS_AUDIT):
        if path.is_file():
            return read_patients_audit(path)
    return None


def tables_in(path: Path) -> list[Path]:
    """Return the tables of scores that ``path`` stands for: itself, or those in a folder. Raises UserError if there are
    none."""
    if not path.is_dir():
        return [path]
    tables = [path / name for name in (SCORES, TABLE) if (path / name).is_file()]
    if not tables:
        raise UserError(f"no {SCORES} in it", where=path, hint="Name a run that was evaluated, or a table of scores.")
    return tables


def _columns(file: Path, mapping: Mapping[str, str]) -> set[str]:
    """Return the columns of the table in ``file``, under our names. Raises UserError."""
    table = read_csv_table(file, (*FIXED, *OPTIONAL, TOTAL, *mapping.values()))
    return set(with_columns(table, mapping).columns)


def _rubric_of(folder: Path, columns: Mapping[Path, set[str]]) -> tuple[Rubric | None, str]:
    """Return the rubric that was kept in ``folder`` with the scores, else that of the run there; None if there is
    neither. And a note for the reader, where another one would have been taken without that file. ``columns``: of each
    table: the rubric has to have their items. Raises UserError if it is damaged."""
    name, kept = rubric_of_run(folder), rubric_beside(next(iter(columns)))
    if not kept.is_file():
        return (load_rubric(name) if name else None), ""
    rubric = load_rubric(str(kept))
    for file, there in columns.items():
        totals_alone = there <= {*FIXED, *OPTIONAL, TOTAL}
        if not totals_alone and (lost := set(rubric.ids) - there):
            note = f"{kept} is not the rubric of {file} ({sorted(lost)[0]!r} is no column) and is not used"
            return (load_rubric(name) if name else None), note
    known = name is not None or rubric.digest == load_rubric().digest
    return rubric, "" if known else f"the instrument is that of {kept}: {rubric.name}"


def rubric_for(table: Path) -> str | None:
    """Return the file of the rubric that is kept beside ``table``, else the primary one of the run there; None if there
    is neither."""
    kept = rubric_beside(table)
    return str(kept) if kept.is_file() else rubric_of_run(table.parent)


def rubric_of_run(folder: Path) -> str | None:
    """Return the primary rubric by the settings in ``folder``; None if there are no settings."""
    evaluation = _evaluation_of(folder)
    try:
        judges = [judge for judge in (evaluation.get("judges") or {}).values() if not judge.get("beside")]
        own = judges[0].get("rubric") if judges else None
        return str(own or evaluation["judging"]["rubric"])
    except (KeyError, TypeError, AttributeError):
        return None


def _evaluation_of(folder: Path) -> dict[str, Any]:
    """Return the section on the evaluation in the settings of ``folder``, empty if there is none. Raises UserError if
    the file is damaged."""
    path = folder / CONFIG
    content: Any = parse_yaml(lambda: path.read_text(encoding="utf-8"), path) if path.is_file() else {}
    evaluation = content.get("evaluation") if isinstance(content, dict) else None
    return evaluation if isinstance(evaluation, dict) else {}


SUMMARY, BEGINS_WITH = "summary", "begins_with"
"""Facts of a transcript: the summary written after it, and the one with which it began."""


def records(sessions: Iterable[Session]) -> Iterator[SimulatedSession]:
    """Yield transcripts as simulated sessions, the inverse of :func:`as_transcripts`. If a transcript has no seed, its
    number is taken. Raises UserError on a pair of answers."""
    for session in sessions:
        if session.preference is not None:
            hint = "Name transcripts of sessions; a pair's chosen answer alone is none."
            raise UserError("a pair of answers, not a session", where=session.where or session.id, hint=hint)
        facts = session.facts
        arm, patient = facts.get("arm", ONE_ARM), session.patient or session.course
        record = SimulatedSession(facts.get("id", session.id), arm, patient, seed_of(session), list(session.turns))
        record.number, record.simulator = number_of(session), facts.get(SIMULATOR, "")
        record.columns = known_columns(facts)
        record.summary = facts.get(SUMMARY, "")
        if BEGINS_WITH in facts:
            record.begins = SessionBegins(record.number, facts[BEGINS_WITH])
        record.ending, record.error = facts.get("ending"), facts.get("error")
        record.marks.update({name: int(facts[name]) for name in MARKS if facts.get(name, "").isdecimal()})
        if why_unratable(session.turns):
            record.labels_seen = labels_seen(session.preamble, *(turn.text for turn in session.turns))
        yield record


def drop_changing_columns(sessions: Sequence[SimulatedSession]) -> list[str]:
    """Remove from ``sessions`` the columns in which a patient has several values (a severity that was measured anew,
    say): subgroups are of patients. Return a line for each column."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for session in sessions:
        for name, value in session.columns.items():
            found[name, session.patient].add(value)
    changing = {key for key, values in found.items() if len(values) > 1}
    for session in sessions:
        kept = {name: value for name, value in session.columns.items() if (name, session.patient) not in changing}
        session.columns = kept
    counts = Counter(name for name, _ in changing)
    return [f"{name} of {count} patients, whose sessions have several values" for name, count in counts.items()]


def as_transcripts(sessions: Iterable[SimulatedSession]) -> Iterator[Session]:
    """Yield simulated sessions as transcripts, so that every reader of a corpus can read them. ``facts`` hold the keys
    that tables of scores use.

    A course is one patient with one arm and simulator, the session's number is the seed plus one. Sessions that have a
    number in a course keep it, and each seed is then a course of its own.
    """
    for session in sessions:
        facts = {"arm": session.arm, "ending": session.ending or "", "error": session.error or ""}
        facts |= {"id": session.id, "seed": str(session.seed)}
        facts |= {SESSION: str(session.number or ""), SIMULATOR: session.simulator, **session.columns}
        facts |= {BEGINS_WITH: session.begins.summary if session.begins else "", SUMMARY: session.summary}
        facts |= {name: str(count) for name, count in session.marks.items()}
        repeated = str(session.seed) if session.number and session.seed else ""
        yield Session(
            "/".join(filter(None, (session.arm, session.patient, session.simulator, repeated))),
            session.number or session.seed + 1,
            tuple(session.turns),
            patient=session.patient,
            facts={name: value for name, value in facts.items() if value},
        )


def is_run(folder: Path) -> bool:
    """Return whether ``folder`` is that of a run: it holds settings and events."""
    return (folder / CONFIG).is_file() and (folder / EVENTS).is_file()


def human_table(run: Path, digest: str, rubric: str) -> Path:
    """Return the table of people's scores in ``run`` by the instrument with this ``digest``, which was called
    ``rubric``: one of its own for another instrument than the run's primary one."""
    primary = rubric_for(run / SCORES)
    if primary is None or rubric_digest(load_rubric(primary)) == digest:
        return run / TABLE
    for beside in sorted(run.glob(of_instrument(RUBRIC, "*"))):
        if rubric_digest(load_rubric(str(beside))) == digest:
            return run / of_instrument(TABLE, beside.stem.removeprefix(f"{Path(RUBRIC).stem}."))
    return run / of_instrument(TABLE, short_name(rubric))


def human_scores(folder: Path, instrument: str = "", keying: Keying = AS_GIVEN) -> list[Score]:
    """Return people's scores in ``folder``, with their evidence and notes; empty if there are none. ``instrument``:
    another one than the primary; ``keying``: its own. Raises UserError if the table or the file of notes is damaged."""
    table = folder / (of_instrument(TABLE, instrument) if instrument else TABLE)
    if not table.is_file():
        return []
    scores = read_scores_csv(table, keying)
    notes = {
        (note["session_id"], note["judge"], note["repeat"]): note
        for note in read_notes(companion_file(table, "notes.jsonl"))
    }
    for score in scores:
        note = notes.get((score.session_id, score.judge, score.repeat), {})
        score.evidence, score.reason = note.get("evidence", {}), note.get("reason", {})
    return scores
