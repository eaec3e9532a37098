"""A document: tokens that attend to each other, with the weight of each in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Branches:
    """Where the two answers of a pair lie in its document: tokens before ``chosen`` are shared, those from ``chosen``
    to ``rejected`` are the chosen answer's, the others the rejected one's. The branches do not see each other.

    Both begin with the last token of what they share, once more: it predicts the first token of each. ``weight``
    multiplies the pair's loss. ``reference`` are the log-probabilities (nats) of both answers by the base, if they are
    known.
    """

    chosen: int
    rejected: int
    weight: float = 1.0
    reference: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """``ids`` int32 ``[n]``; ``loss_weights`` float32 ``[n]``, 0 for tokens that the loss does not count.

    ``trimmed`` counts tokens left off after the last supervised one: they change neither loss nor gradient.
    ``branches``: it is a pair of answers.
    """

    name: str
    ids: NDArray[np.int32]
    loss_weights: NDArray[np.float32]
    trimmed: int = 0
    branches: Branches | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised(self) -> NDArray[np.bool_]:
        """Tokens that the loss counts, bool ``[n]``."""
        return self.loss_weights > 0


def trimmed(name: str, ids: NDArray[np.int32], loss_weights: NDArray[np.float32]) -> Document:
    """Return the document without the tokens after its last supervised one (of none: only its first token)."""
    counted = np.flatnonzero(loss_weights)
    kept = int(counted[-1]) + 1 if len(counted) else min(1, len(ids))
    return Document(name, ids[:kept], loss_weights[:kept], len(ids) - kept)
