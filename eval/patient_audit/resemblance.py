"""Are they different people: how alike the words of two sessions are, of one patient and of two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.eval.patient_audit.measures import Measured

FEWEST_WORDS = 50
"""Sessions with fewer words of the patient are left out."""

MOST_SESSIONS = 1500
"""Sessions that are compared, evenly spread over the set: the comparison is of all pairs."""

MOST_WORDS = 20_000
"""Different words that count, those of the most sessions."""


@dataclass(frozen=True, slots=True)
class Resemblance:
    """Mean cosine of tf-idf vectors of the patient's words: ``within`` of two sessions of one patient, ``between`` of
    two patients. ``recognised``: share of sessions whose most similar session is of the same patient; ``chance``: the
    share if patients did not matter. None where there are no such pairs."""

    sessions: int
    patients: int
    within: float | None
    between: float | None
    recognised: float | None
    chance: float | None


def resemblance(sessions: Sequence[Measured]) -> Resemblance:
    """Return how alike the patients of ``sessions`` are. Only patients with two sessions can be recognised."""
    long = [session for session in sessions if len(session.words) >= FEWEST_WORDS]
    if len(long) > MOST_SESSIONS:
        chosen = np.linspace(0, len(long) - 1, MOST_SESSIONS).round().astype(int)
        long = [long[index] for index in chosen]
    names = sorted({session.patient for session in long})
    if len(long) < 2:
        return Resemblance(len(long), len(names), None, None, None, None)
    vectors = _tf_idf([Counter(session.words) for session in long])
    cosines = vectors @ vectors.T
    patient = np.array([names.index(session.patient) for session in long])
    same, upper = patient[:, None] == patient[None, :], np.triu(np.ones(cosines.shape, bool), 1)
    within, between = cosines[same & upper], cosines[~same & upper]
    np.fill_diagonal(cosines, -1)
    again = same.sum(axis=1) > 1
    recognised = chance = None
    if again.any() and len(names) > 1:
        recognised = float((patient[cosines.argmax(axis=1)] == patient)[again].mean())
        chance = float(((same.sum(axis=1) - 1) / (len(long) - 1))[again].mean())
    mean_within, mean_between = (float(part.mean()) if part.size else None for part in (within, between))
    return Resemblance(len(long), len(names), mean_within, mean_between, recognised, chance)


def _tf_idf(documents: Sequence[Counter[str]]) -> np.ndarray:
    """Return a row of unit length for each document, float32 ``[documents, words]``; a word's weight is (1 + ln count)
    · ln((1 + documents) / (1 + documents with it)), so that a word of all documents has none."""
    frequency = Counter(word for document in documents for word in document)
    index = {word: column for column, (word, _) in enumerate(frequency.most_common(MOST_WORDS))}
    matrix = np.zeros((len(documents), len(index)), np.float32)
    for row, document in enumerate(documents):
        for word, count in document.items():
            if word in index:
                matrix[row, index[word]] = 1 + np.log(count)
    matrix *= np.log((1 + len(documents)) / (1 + np.array([frequency[word] for word in index], np.float32)))
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.where(norms > 0, norms, 1))
