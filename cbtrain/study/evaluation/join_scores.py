"""Join scores to the transcripts that they are of: by the session's id, else by arm, patient and seed or session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cbtrain.errors import UserError, first_of
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.sessions import Key
from cbtrain.eval.rating.csv_table import read_csv_table
from cbtrain.eval.rating.keying import AS_GIVEN, Keying
from cbtrain.eval.rating.scores import FIXED, scores_of
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.runner import SimulatedSession

MOST_ARMS = 6


def ids_in(files: Sequence[Path], keying: Keying = AS_GIVEN) -> dict[Key, str]:
    """Return the id of each session in those of ``files`` that have ids: tables of cbtrain. ``keying``: by which their
    totals are made."""
    found: dict[Key, str] = {}
    for file in files:
        table = read_csv_table(file, FIXED)
        if set(FIXED) <= set(table.columns):
            found |= {(score.arm, score.patient, score.slot): score.session_id for score in scores_of(table, keying)}
    return found


def join_scores(
    ratings: Ratings, ids: Mapping[Key, str], sessions: Sequence[SimulatedSession]
) -> tuple[dict[Key, SimulatedSession], list[str]]:
    """Return the transcript of each rated session that has one, and notes on what was not joined. ``ids``: of the rated
    sessions, as far as they have one. Raises UserError if nothing is joined, or one transcript to two sessions,
    and if the id and the arm, patient and seed are those of two transcripts."""
    by_id = _alone({id(session): session.id for session in sessions}, sessions)
    by_key = _alone({id(session): (session.arm, session.patient, session.slot) for session in sessions}, sessions)
    rated = list(dict.fromkeys(ratings.sessions))
    joined, first_of_transcript = dict[Key, SimulatedSession](), dict[int, Key]()
    for key in rated:
        named, placed = by_id.get(ids.get(key, "")), by_key.get(key)
        if named is not None and placed is not None and named is not placed:
            what = f"session_id {named.id!r} is that of one transcript, but {_words(key)} that of {placed.id!r}"
            raise UserError(what, hint="Correct the ids, or leave them out of one of the two.")
        session = named or placed
        if session is None:
            continue
        first = first_of_transcript.setdefault(id(session), key)
        if first != key:
            what = f"transcript {session.id!r} is joined to two rated sessions: {_words(first)} and {_words(key)}"
            raise UserError(what, hint="Give each session its own id, or the same arm, patient and seed in both files.")
        joined[key] = session
    if not joined:
        there, in_scores = _arms([session.arm for session in sessions]), _arms(list(ratings.arms))
        how = "They are joined by session_id, else by arm, patient and seed."
        hint = f"{how} Arms there: {there}; in the scores: {in_scores}."
        raise UserError("no rated session is among the transcripts", hint=hint)
    notes = []
    if lacking := [key for key in rated if key not in joined]:
        notes.append(f"{_have(len(lacking), 'rated session')} no transcript ({_arms([arm for arm, _, _ in lacking])})")
    if unrated := [session.arm for session in sessions if id(session) not in first_of_transcript]:
        notes.append(f"{_have(len(unrated), 'transcript')} no score ({_arms(unrated)})")
    if same := len(sessions) - len(by_key):
        notes.append(f"{same:,} transcripts have the same arm, patient and seed as another: they are joined by id only")
    other = [key for key, session in joined.items() if key[:2] != (session.arm, session.patient)]
    if other:
        what = counted(len(other), "session")
        notes.append(f"{what} joined by id to a transcript of another arm or patient; those of the scores count")
    return joined, notes


Name = TypeVar("Name", str, Key)


def _alone(names: Mapping[int, Name], sessions: Sequence[SimulatedSession]) -> dict[Name, SimulatedSession]:
    """Return the sessions by their name in ``names`` (by identity), without those that share one."""
    counts = Counter(names.values())
    return {names[id(session)]: session for session in sessions if counts[names[id(session)]] == 1}


def _have(count: int, noun: str) -> str:
    return f"{counted(count, noun)} {'has' if count == 1 else 'have'}"


def _words(key: Key) -> str:
    arm, patient, slot = key
    return f"{slot} of {patient} with {arm}"


def _arms(names: Sequence[str]) -> str:
    counts = Counter(names)
    several = [f"{arm} {count:,}" if count > 1 else arm for arm, count in counts.items()]
    return ", ".join(first_of(several, MOST_ARMS)) or "none"
