"""Ratings as a table, which every analysis starts from; :mod:`cbtrain.eval.analysis.score_tables` reads it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cbtrain.errors import UserError
from cbtrain.eval.analysis.arms import Arm, arms_of
from cbtrain.eval.analysis.moderators import Moderators, moderators_of
from cbtrain.eval.analysis.rounding import too_close
from cbtrain.eval.analysis.sessions import Key
from cbtrain.eval.rating.keying import AS_GIVEN
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import TOTAL, Score
from cbtrain.eval.simulation.slots import MOST_SEEDS, seed_in, words_of
from cbtrain.transcripts.source import natural_key


@dataclass(frozen=True, slots=True)
class Scale:
    """The lowest and highest points of an item, ``step`` apart. ``cutoff``: smallest total of a competent session, None
    if the instrument has no cut-off. ``name``: of the instrument, if there is no rubric that names it."""

    low: float
    high: float
    cutoff: float | None = None
    name: str = ""
    step: float = 1.0


COLUMNS = ("arm", "patient", "session", "number", "simulator", "judge", "repeat", "status", "items")
"""Names of the arrays in :class:`Ratings`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """A table of ratings, one row for each: a judge's scores of one session.

    ``items``: float64 ``[rows, items]``, NaN for a missing score; reversed ones are turned round, so that more is
    better. A table of totals alone has one item, ``total``. ``weights`` of the items in the total; None: all 1.
    ``subscales``: their items. The other arrays are ``[rows]``: names of ``arm``, ``patient`` and ``judge``,
    ``session`` (slot within patient and arm, :mod:`cbtrain.eval.simulation.slots`), its ``number`` in the course (0:
    unknown) and ``repeat`` (int64), ``simulator`` (str, "" if there is one only), ``status`` (a
    :data:`cbtrain.eval.rating.scores.Status`). ``arms``: by name; may include arms without a row. ``moderators``:
    columns of patients. ``scale``: None if the instrument is not known. ``session_ids``: those that a table has.
    ``notes``: guesses that were made when the table was read.
    """

    item_names: tuple[str, ...]
    arms: dict[str, Arm]
    arm: np.ndarray
    patient: np.ndarray
    session: np.ndarray
    number: np.ndarray
    simulator: np.ndarray
    judge: np.ndarray
    repeat: np.ndarray
    status: np.ndarray
    items: np.ndarray
    moderators: Moderators = field(default_factory=dict)
    scale: Scale | None = None
    weights: tuple[float, ...] | None = None
    subscales: Mapping[str, Sequence[str]] = field(default_factory=dict)
    session_ids: Mapping[Key, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the names of the items, none where totals alone are known: their tables would repeat the total."""
        return () if self.item_names == (TOTAL,) else self.item_names

    @property
    def judges(self) -> list[str]:
        """Return the judges in natural order of their names, so that the order of rows does not matter."""
        return sorted(set(map(str, self.judge)), key=natural_key)

    @property
    def sessions(self) -> list[Key]:
        """Return the session that each row rates: arm, patient and slot."""
        rows = zip(self.arm, self.patient, self.session, strict=True)
        return [(str(arm), str(patient), int(session)) for arm, patient, session in rows]

    @property
    def rated_sessions(self) -> set[Key]:
        """Return the sessions that have a total by any judge."""
        return set(self.only(np.isfinite(self.total)).sessions)

    @property
    def seed(self) -> np.ndarray:
        """Return the seed of each row's session, int64 ``[rows]``; the number of a table that has no seeds."""
        has_slot = (self.number > 0) | (self.simulator != "")
        return np.where(has_slot, self.session % MOST_SEEDS, self.session)

    def session_words(self, row: int) -> str:
        """Return the session that ``row`` rates, in words for messages."""
        number, simulator = int(self.number[row]), str(self.simulator[row])
        slot = int(self.session[row])
        place = words_of(seed_in(slot, number, simulator), number, simulator) if number or simulator else str(slot)
        return f"session {place} of patient {self.patient[row]} with {self.arm[row]}"

    def session_id(self, row: int) -> str:
        """Return the id of the session that ``row`` rates: the table's, else one that is made of what it says."""
        number, simulator, slot = int(self.number[row]), str(self.simulator[row]), int(self.session[row])
        arm, patient = str(self.arm[row]), str(self.patient[row])
        place = filter(None, (arm, patient, simulator, str(number or ""), str(seed_in(slot, number, simulator))))
        return self.session_ids.get((arm, patient, slot)) or "/".join(place)

    def only(self, rows: np.ndarray) -> Ratings:
        """Return the ratings of ``rows`` (bool ``[rows]``), with all arms."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return replace(self, **columns)

    @property
    def total(self) -> np.ndarray:
        """Return the weighted sum over items, float64 ``[rows]``; NaN if an item has no score."""
        return self.total_of(self.items)

    def total_of(self, items: np.ndarray) -> np.ndarray:
        """Return the totals, float64 ``[rows]``, of ``items``, float64 ``[rows, items]``."""
        return np.asarray(items.sum(axis=1) if self.weights is None else items @ np.array(self.weights))

    def subscale_scores(self) -> dict[str, np.ndarray]:
        """Return the weighted mean of the items of each sub-scale, float64 ``[rows]``; NaN if one has no score."""
        weights = np.ones(len(self.item_names)) if self.weights is None else np.array(self.weights)
        columns = {name: [self.item_names.index(item) for item in items] for name, items in self.subscales.items()}
        return {name: self.items[:, at] @ weights[at] / weights[at].sum() for name, at in columns.items()}

    @property
    def weight(self) -> float:
        """Return the sum of the weights: a total is that many times its mean item."""
        return float(len(self.item_names) if self.weights is None else sum(self.weights))

    def __len__(self) -> int:
        return len(self.arm)


def join_ratings(tables: Sequence[Ratings], where: str) -> Ratings:
    """Return several tables of the same instrument as one. Raises UserError, which names ``where``, on different items
    and on duplicate ratings."""
    first = tables[0]
    for table in tables[1:]:
        if set(table.item_names) != set(first.item_names):
            other = sorted(set(table.item_names) ^ set(first.item_names))[0]
            hint = "Tables that are read together need the same items."
            raise UserError(f"item {other!r} is in one table only", where=where, hint=hint)
    same_order = []
    for table in tables:
        indices = [table.item_names.index(name) for name in first.item_names]
        same_order.append(replace(table, items=table.items[:, indices]))
    columns = {name: np.concatenate([getattr(table, name) for table in same_order]) for name in COLUMNS}
    arms = {name: arm for table in tables for name, arm in table.arms.items()}
    notes = tuple(note for table in tables for note in table.notes)
    known = [
        (patient, {column: value})
        for table in tables
        for column in table.moderators
        for patient, value in table.moderators[column].items()
    ]
    moderators = moderators_of(known, where)
    ids = {key: session_id for table in tables for key, session_id in table.session_ids.items()}
    joined = replace(
        first, session_ids=ids, arms=_in_natural_order(arms), notes=notes, moderators=moderators, **columns
    )
    refuse_impossible(joined, Path(where))
    return joined


def _in_natural_order(arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """Return ``arms`` in natural order of their names (2 before 10), so that the order of rows does not matter."""
    return {name: arms[name] for name in sorted(arms, key=natural_key)}


def one_judge(ratings: Ratings, name: str, where: str) -> Ratings:
    """Return the ratings of the judge called ``name``. Raises UserError if there is none."""
    if name not in ratings.judges:
        hint = f"The judges are: {', '.join(ratings.judges)}."
        raise UserError(f"no rating by {name!r}", where=where, hint=hint)
    return ratings.only(ratings.judge == name)


def ratings_of(
    scores: Sequence[Score], items: Sequence[str], arms: Iterable[str], rubric: Rubric | None, where: object = "scores"
) -> Ratings:
    """Return ``scores`` as a table. ``items`` and ``arms``: their names, as ``scores`` may be empty; ``rubric``: None
    if it is not known. Raises UserError, which names ``where``, if a patient has two values of a column."""
    keying = rubric.keying if rubric else AS_GIVEN
    totals_alone = tuple(items) == (TOTAL,)
    values = [
        [math.nan if (value := score.domains[name]) is None else keying.keyed(name, value) for name in items]
        for score in scores
    ]
    return Ratings(
        item_names=tuple(items),
        arms=arms_of(arms),
        arm=np.array([score.arm for score in scores]),
        patient=np.array([score.patient for score in scores]),
        session=np.array([score.slot for score in scores], dtype=np.int64),
        number=np.array([score.number for score in scores], dtype=np.int64),
        simulator=np.array([score.simulator for score in scores], dtype=np.str_),
        judge=np.array([score.judge for score in scores]),
        repeat=np.array([score.repeat for score in scores], dtype=np.int64),
        status=np.array([score.status for score in scores]),
        items=np.array(values, dtype=np.float64).reshape(len(scores), len(items)),
        moderators=moderators_of(((score.patient, score.columns) for score in scores), where),
        scale=scale_of_rubric(rubric, totals_alone=totals_alone) if rubric else None,
        weights=tuple(map(keying.weight, items)) if keying.weights and not totals_alone else None,
        subscales=rubric.subscales if rubric and not totals_alone else {},
        session_ids={(score.arm, score.patient, score.slot): score.session_id for score in scores},
    )


def scale_of_rubric(rubric: Rubric, *, totals_alone: bool = False) -> Scale:
    """Return the scale of its items, or that of a table whose one item is the total."""
    low, high = rubric.total_range if totals_alone else (rubric.minimum, rubric.maximum)
    return Scale(low, high, rubric.cutoff, rubric.name, rubric.step)


def refuse_impossible(ratings: Ratings, path: Path) -> None:
    """Raise UserError, which names ``path``, on ratings that count twice, lie outside the scale, or differ by too
    little to be told from rounding."""
    _refuse_duplicates(ratings, path)
    _refuse_scores_outside_scale(ratings, path)
    _refuse_close_scores(ratings, path)


def _refuse_duplicates(ratings: Ratings, path: Path) -> None:
    """Raise UserError if one judge rated a session twice in one repeat: it would count twice."""
    seen: set[tuple[object, ...]] = set()
    columns = (ratings.arm, ratings.patient, ratings.session, ratings.judge, ratings.repeat)
    for row, key in enumerate(zip(*columns, strict=True)):
        if key in seen:
            what = f"{ratings.session_words(row)} occurs twice (same judge and repeat)"
            raise UserError(what, where=path, hint="Remove one of the rows, or number the repeats.")
        seen.add(key)


def _refuse_scores_outside_scale(ratings: Ratings, path: Path) -> None:
    """Raise UserError if a score lies outside the scale."""
    if ratings.scale is None:
        return
    low, high = ratings.scale.low, ratings.scale.high
    outside = np.argwhere((ratings.items < low) | (ratings.items > high))
    if len(outside):
        row, item = outside[0]
        score = f"{ratings.items[row, item]:g}, outside {low:g} to {high:g}"
        what = f"{ratings.item_names[item]} of {ratings.session_words(row)} is {score}"
        raise UserError(what, where=path, hint="Correct the cell, or name the rubric with --rubric.")


def _refuse_close_scores(ratings: Ratings, path: Path) -> None:
    """Raise UserError if a judge's scores, or those of one arm, differ by so little of their size that an analysis
    would take differences between them for rounding (:func:`cbtrain.eval.analysis.rounding.too_close`)."""
    columns = {**dict(zip(ratings.item_names, ratings.items.T, strict=True)), "the total": ratings.total}
    groups = {"": np.ones(len(ratings), dtype=bool)}
    groups |= {f" of {name}": ratings.judge == name for name in ratings.judges}
    for name in ratings.judges:
        groups |= {f" of {name} with {arm}": (ratings.judge == name) & (ratings.arm == arm) for arm in ratings.arms}
    for column, values in columns.items():
        for who, rows in groups.items():
            if too_close(values[rows]):
                finite = values[rows][np.isfinite(values[rows])]
                what = f"scores for {column}{who} lie between {finite.min():.15g} and {finite.max():.15g}"
                hint = "They differ by too little of their size: subtract the same number from all, or correct them."
                raise UserError(what, where=path, hint=hint)
