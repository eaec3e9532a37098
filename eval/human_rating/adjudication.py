"""Large differences between people: which they are, how they are settled, and the scores that result.

Originals stay. What is settled makes one more judge, ``human: adjudicated``: on every session that two or more people
rated, the settled score of a domain where there is one, and the mean over people in the others.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.eval.human_rating.form import UNRATABLE
from cbtrain.eval.rating.csv_table import from_cell, number_of, read_csv_table, to_cell
from cbtrain.eval.rating.keying import Keying
from cbtrain.eval.rating.people import ADJUDICATED, people_of
from cbtrain.eval.rating.scores import Score, status_of

SETTLED_FILE = "adjudicated.csv"
"""The kind of the file beside a table of people's scores that has what was settled."""

LARGE = 1 / 6
"""Share of the scale's range: people who differ by more differ by much. Of 0 to 6 that is more than one point."""

EPSILON = 1e-9


def default_threshold(minimum: float, maximum: float, step: float) -> float:
    """Return the largest difference, in points, that needs no adjudication: a sixth of the range, at least a step."""
    return max(LARGE * (maximum - minimum), step)


@dataclass(frozen=True, slots=True)
class Settled:
    """The settled score of one domain (None: cannot be rated), who settled it in which form, and the threshold, in
    points, of that form."""

    form: str
    adjudicator: str
    session_id: str
    domain: str
    score: float | None
    threshold: float


COLUMNS = ("form", "adjudicator", "session_id", "domain", "score", "threshold")

Said = dict[str, dict[str, float | None]]
"""By domain and person, the score; None: cannot be rated."""


@dataclass(frozen=True, slots=True)
class Dispute:
    """A session on which people differ by much, with what they said in the domains concerned."""

    first: Score
    said: Said


def raters_of(scores: Sequence[Score]) -> list[str]:
    """Return the people among the judges; all judges, if no name says that it is a person."""
    judges = [judge for judge in dict.fromkeys(score.judge for score in scores) if judge != ADJUDICATED]
    return people_of(judges) or judges


def disputes(scores: Sequence[Score], threshold: float) -> list[Dispute]:
    """Return the sessions on which two people differ by more than ``threshold`` points in a domain, or only one found
    that it can be rated; in the order of the table."""
    found = []
    for rows in _by_session(scores).values():
        said = {domain: by_person for domain, by_person in _said(rows).items() if _differ(by_person, threshold)}
        if said:
            found.append(Dispute(rows[0], said))
    return found


def largest_difference(by_person: Mapping[str, float | None]) -> float | None:
    """Return the largest difference in points; None if it is between a score and "cannot be rated"."""
    known = [score for score in by_person.values() if score is not None]
    return max(known) - min(known) if len(known) == len(by_person) else None


def adjudicated_scores(
    scores: Sequence[Score], settled: Sequence[Settled], threshold: float, keying: Keying
) -> tuple[list[Score], int]:
    """Return the scores of the judge ``human: adjudicated``, and the number of sessions that have none because a large
    difference is not settled."""
    made, left = [], 0
    by_session: dict[str, dict[str, Settled]] = {}
    for one in settled:
        by_session.setdefault(one.session_id, {})[one.domain] = one
    for session, rows in _by_session(scores).items():
        said, own = _said(rows), by_session.get(session, {})
        if any(_differ(by_person, threshold) for domain, by_person in said.items() if domain not in own):
            left += 1
            continue
        made.append(_adjudicated(rows[0], said, own, keying))
    return made, left


def _adjudicated(first: Score, said: Said, own: Mapping[str, Settled], keying: Keying) -> Score:
    values: dict[str, float | None] = {}
    missing = []
    for domain in first.domains:
        by_person = said.get(domain, {})
        if domain in own:
            values[domain] = own[domain].score
        elif by_person:
            known = [score for score in by_person.values() if score is not None]
            values[domain] = sum(known) / len(known) if known else None
        else:
            values[domain] = None
            missing.append(domain)
    status = status_of(values, missing)
    who = ", ".join(dict.fromkeys(one.adjudicator for one in own.values()))
    note = f"settled by {who}: {', '.join(own)}" if own else "nothing to settle: means over people"
    return Score(
        session_id=first.session_id,
        arm=first.arm,
        patient=first.patient,
        seed=first.seed,
        judge=ADJUDICATED,
        repeat=0,
        status=status,
        domains=values,
        reason={"note": note},
        stopped_at=missing[0] if missing else "",
        number=first.number,
        simulator=first.simulator,
        columns=dict(first.columns),
        keying=keying,
    )


def read_settled(path: Path) -> list[Settled]:
    """Return what was settled; nothing if there is no such file. Raises UserError if it is no such table."""
    if not path.exists():
        return []
    table = read_csv_table(path, COLUMNS)
    hint = "Remove it, and import the forms of adjudication again."
    if set(table.columns) != set(COLUMNS):
        raise UserError("not the table of settled scores that cbtrain wrote", where=path, hint=hint)
    found = []
    for line, row in table.rows:
        score, threshold = number_of(row["score"]), number_of(row["threshold"])
        if threshold is None or (score is None and row["score"] != UNRATABLE):
            raise UserError("a score or threshold is no number", where=f"{path}:{line}", hint=hint)
        form, adjudicator, session, domain = (from_cell(row[name]) for name in COLUMNS[:4])
        found.append(Settled(form, adjudicator, session, domain, score, threshold))
    return found


def settled_text(settled: Sequence[Settled]) -> str:
    """Return the text of the file."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for one in settled:
        names = map(to_cell, (one.form, one.adjudicator, one.session_id, one.domain))
        table.writerow([*names, UNRATABLE if one.score is None else f"{one.score:g}", f"{one.threshold:g}"])
    return out.getvalue()


def _by_session(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Return people's rows by session, of sessions that two or more people rated."""
    people = set(raters_of(scores))
    rows: dict[str, list[Score]] = {}
    for score in scores:
        if score.judge in people:
            rows.setdefault(score.session_id, []).append(score)
    return {session: some for session, some in rows.items() if len({score.judge for score in some}) > 1}


def _said(rows: Sequence[Score]) -> Said:
    """Return what each person said of a session, by domain; repeats are averaged. A gap of a rating that was broken off
    is no statement."""
    repeats: dict[str, dict[str, list[float | None]]] = {}
    for row in rows:
        for domain, score in row.domains.items():
            if score is not None or row.status == "unratable":
                repeats.setdefault(domain, {}).setdefault(row.judge, []).append(score)
    return {
        domain: {person: _mean(scores) for person, scores in by_person.items()} for domain, by_person in repeats.items()
    }


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _differ(by_person: Mapping[str, float | None], threshold: float) -> bool:
    if len(by_person) < 2:
        return False
    difference = largest_difference(by_person)
    if difference is None:
        return any(score is not None for score in by_person.values())
    return difference > threshold + EPSILON
