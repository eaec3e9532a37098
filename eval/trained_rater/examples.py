"""What a rater is fitted on: sessions as features, with the scores that they were given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cbtrain.eval.rating.keying import Keying


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """``items``: ids, in order; ``names``: what they are called. Scores lie between ``low`` and ``high``; ``keying``
    makes them a total. ``digest``: of the rubric."""

    name: str
    digest: str
    items: tuple[str, ...]
    names: tuple[str, ...]
    low: float
    high: float
    keying: Keying

    def clipped(self, scores: np.ndarray) -> np.ndarray:
        """Return ``scores`` (float, any shape) cut to the scale."""
        return np.clip(scores, self.low, self.high)

    def totals(self, scores: np.ndarray) -> np.ndarray:
        """Return the totals, float64 ``[rows]``, of scores as raters give them, float ``[rows, items]``."""
        keyed = np.column_stack(
            [
                self.keying.weight(item) * (self.keying.turned[item] - column if item in self.keying.turned else column)
                for item, column in zip(self.items, scores.T, strict=True)
            ]
        )
        return np.asarray(keyed.sum(axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """One row for each session. ``features``: float64 ``[rows, features]``, ``names`` of them; ``turns``: of both
    speakers, int64; ``arm`` and ``patient``: str; ``scores``: float64 ``[rows, items]``, as raters give them; ``cue``:
    the cue rater's, NaN where it gave none, None if it has no cues for these items. ``languages``: those of the
    sessions, empty if none was found."""

    features: np.ndarray
    names: tuple[str, ...]
    turns: np.ndarray
    arm: np.ndarray
    patient: np.ndarray
    scores: np.ndarray
    cue: np.ndarray | None
    languages: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)
