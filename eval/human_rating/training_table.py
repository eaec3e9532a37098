"""Ratings of training sessions, in a table of their own: they are practice and never results."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.eval.human_rating.form import UNRATABLE
from cbtrain.eval.human_rating.key import Key
from cbtrain.eval.human_rating.parse_forms import FilledForm
from cbtrain.eval.rating.csv_table import from_cell, read_csv_table, to_cell

ADJACENT = 1.0
"""Points by which two scores may differ and still be adjacent."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One domain of one training session, as in the file. ``score`` and ``agreed``: a number or ``n/a``;
    ``difference``: score minus agreed, empty unless both are numbers."""

    form: str
    judge: str
    session_id: str
    domain: str
    score: str
    agreed: str
    difference: str


COLUMNS = tuple(field.name for field in fields(TrainingRow))


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """How near a rater came to the agreed scores: over ``compared`` scores the mean absolute difference in points, the
    mean difference (``above``: positive for a mild rater), and the shares of ``exact`` and ``adjacent`` ones.
    ``furthest``: the domain with the largest mean absolute difference, "" if all are equal, and that difference.
    ``sessions`` were begun, of ``planned``."""

    sessions: int
    planned: int
    compared: int
    mean_difference: float
    above: float
    furthest: tuple[str, float]
    exact: float
    adjacent: float


def training_rows(form: FilledForm, key: Key, judge: str) -> list[TrainingRow]:
    """Return the rows of ``form``: one for each domain that was rated and has an agreed score."""
    agreed_of = {session.code: session.agreed for session in key.training}
    rows = []
    for filled in form.training:
        agreed_scores = agreed_of[filled.session.code]
        for domain, score in filled.scores.items():
            if domain not in agreed_scores:
                continue
            agreed = agreed_scores[domain]
            difference = None if score is None or agreed is None else score - agreed
            texts = (_cell(score), _cell(agreed), "" if difference is None else f"{difference:g}")
            rows.append(TrainingRow(form.form.id, judge, filled.session.session_id, domain, *texts))
    return rows


def training_result(rows: Sequence[TrainingRow], planned: int) -> TrainingResult | None:
    """Return how near the rows of one rater come to the agreed scores; None if nothing can be compared."""
    differences = [float(row.difference) for row in rows if row.difference]
    sizes = [abs(difference) for difference in differences]
    if not sizes:
        return None
    by_domain: dict[str, list[float]] = {}
    for row in rows:
        if row.difference:
            by_domain.setdefault(row.domain, []).append(abs(float(row.difference)))
    means = {domain: sum(some) / len(some) for domain, some in by_domain.items()}
    worst = max(means, key=means.__getitem__)
    furthest = (worst, means[worst]) if means[worst] else ("", 0.0)
    exact = sum(size < 1e-9 for size in sizes) / len(sizes)
    adjacent = sum(size < ADJACENT + 1e-9 for size in sizes) / len(sizes)
    sessions = len({row.session_id for row in rows})
    return TrainingResult(
        sessions=sessions,
        planned=planned,
        compared=len(sizes),
        mean_difference=sum(sizes) / len(sizes),
        above=sum(differences) / len(differences),
        furthest=furthest,
        exact=exact,
        adjacent=adjacent,
    )


def read_training_rows(path: Path) -> list[TrainingRow]:
    """Return the rows in the file; none if there is no such file. Raises UserError if it is no such table."""
    if not path.exists():
        return []
    table = read_csv_table(path, COLUMNS)
    if set(table.columns) != set(COLUMNS):
        hint = "Remove it, and import all forms again."
        raise UserError("not the table of training ratings that cbtrain wrote", where=path, hint=hint)
    return [TrainingRow(*(from_cell(row[name]) for name in COLUMNS)) for _, row in table.rows]


def training_text(rows: Sequence[TrainingRow]) -> str:
    """Return the text of the file."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        # A difference of -1 is a number and no formula.
        table.writerow([*map(to_cell, astuple(row)[:-1]), row.difference])
    return out.getvalue()


def _cell(score: float | None) -> str:
    return UNRATABLE if score is None else f"{score:g}"
