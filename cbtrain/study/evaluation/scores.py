"""What was rated, from where it lies: a run folder, or tables of scores with or without their transcripts; by machines
and by people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.analysis.ratings import Ratings, join_ratings, one_judge, read_ratings
from cbtrain.eval.analysis.sessions import ONE_ARM, Key, SessionOutcome, seed_of, session_outcomes
from cbtrain.eval.human_rating.import_forms import TABLE, companion_file
from cbtrain.eval.rating.rubric import Rubric, load_rubric
from cbtrain.eval.rating.scores import Score, read_scores_csv
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.run_files import AUDIT, CONFIG, EVENTS, SCORES, TRANSCRIPTS
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Session
from cbtrain.yaml_files import parse_yaml


@dataclass(frozen=True, slots=True)
class ScoredStudy:
    """``rubric`` is None where no instrument of ours is known. ``run``: the run folder, where one was named and not
    tables. ``deciding``: the judges that make up the panel, where that is known; ``chosen``: the one judge whose
    ratings were asked for."""

    ratings: Ratings
    rubric: Rubric | None
    transcripts: list[Session]
    facts: dict[Key, SessionOutcome]
    run: Path | None
    deciding: list[str]
    chosen: str | None


def load_scores(
    paths: Sequence[Path], *, rubric: str | None = None, judge: str | None = None, transcripts: Path | None = None
) -> ScoredStudy:
    """Read the tables at ``paths`` as one; a folder stands for its ``scores.csv`` and ``human_scores.csv``.

    The rubric is the one named, else that of the run's settings, else the shipped one where its domains are the
    table's. Transcripts are those named, else ``sessions.jsonl`` beside the first table. ``judge`` keeps one judge's
    ratings. Raises UserError.
    """
    folder = paths[0] if paths[0].is_dir() else paths[0].parent
    name = rubric or _rubric_of_run(folder)
    chosen = load_rubric(name) if name else None
    files = [file for path in paths for file in _tables(path)]
    where = ", ".join(map(str, files))
    tables = [read_ratings(file, chosen) for file in files]
    ratings = join_ratings(tables, where)
    # People who rated a sample change nothing of who decides among the machine's judges.
    both = zip(files, tables, strict=True)
    machine = list(dict.fromkeys(name for file, table in both if file.name != TABLE for name in table.judges))
    deciding = machine if len(machine) < len(ratings.judges) else []
    if judge is not None:
        ratings = one_judge(ratings, judge, where)
    own = folder / TRANSCRIPTS
    source = transcripts or (own if own.is_file() else None)
    sessions = list(read(str(source)).sessions()) if source else []
    facts = session_outcomes(sessions)
    if transcripts and not any(key[0] in ratings.arms for key in facts):
        arms = ", ".join(sorted({key[0] for key in facts})[:6]) or "none"
        hint = f"Arms there: {arms}; arms in the scores: {', '.join(ratings.arms)}."
        raise UserError("no session of any arm that was rated", where=transcripts, hint=hint)
    run = paths[0] if paths == [folder] else None
    return ScoredStudy(ratings, chosen, sessions, facts, run, deciding if judge is None else [], judge)


def audit_of(folder: Path) -> dict[str, Any] | None:
    """What ``cbtrain rate audit`` found of the rater, where it lies in the run folder or in ``audit/`` there."""
    for path in (folder / AUDIT, folder / "audit" / AUDIT):
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return found
    return None


def _tables(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [path / name for name in (SCORES, TABLE) if (path / name).is_file()]
    if not found:
        raise UserError(f"no {SCORES} in it", where=path, hint="Name a run that was evaluated, or a table of scores.")
    return found


def _rubric_of_run(folder: Path) -> str | None:
    """The rubric that the settings beside the scores name; None where there are none."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    settings: Any = parse_yaml(lambda: path.read_text(encoding="utf-8"), path)
    try:
        return str(settings["evaluation"]["judging"]["rubric"])
    except (KeyError, TypeError):
        return None


def records(sessions: Iterable[Session]) -> Iterator[SimulatedSession]:
    """``facts.arm`` names the arm. A run's own transcripts hold the ids and seeds that its scores have; elsewhere a
    session's number stands for the seed."""
    for session in sessions:
        facts = session.facts
        arm, patient = facts.get("arm", ONE_ARM), session.patient or session.course
        made = SimulatedSession(facts.get("id", session.id), arm, patient, seed_of(session), list(session.turns))
        made.ending, made.error = facts.get("ending"), facts.get("error")
        yield made


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is that of a run: settings and events lie in it."""
    return (folder / CONFIG).is_file() and (folder / EVENTS).is_file()


def human_scores(folder: Path) -> list[Score]:
    """Those in ``folder``, with the evidence and notes that stand beside the table; none where there are none. Raises
    UserError on a malformed table."""
    table = folder / TABLE
    if not table.is_file():
        return []
    scores, notes = read_scores_csv(table), _notes(companion_file(table, "notes.jsonl"))
    for score in scores:
        note = notes.get((score.session_id, score.judge, score.repeat), {})
        score.evidence, score.reason = note.get("evidence", {}), note.get("reason", {})
    return scores


def _notes(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """By session, judge and repeat. They add to the scores: what cannot be read is left out."""
    found = {}
    known = {field.name for field in fields(Score)}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            note = json.loads(line)
        except ValueError:
            continue
        if isinstance(note, dict) and known <= set(note):
            found[note["session_id"], note["judge"], note["repeat"]] = note
    return found
