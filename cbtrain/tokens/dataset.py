"""Choose and render the sessions that a token budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.tokens.chat import Document
from cbtrain.transcripts.types import Session


@dataclass(frozen=True, slots=True)
class Selection:
    """``documents`` of ``sessions``, which hold ``words`` of the ``words_offered``."""

    documents: list[Document]
    sessions: list[Session]
    words: int
    words_offered: int

    @property
    def tokens(self) -> int:
        return sum(len(document) for document in self.documents)

    @property
    def share(self) -> float:
        return self.words / self.words_offered if self.words_offered else 0.0


def select_documents(
    sessions: Sequence[Session], render: Callable[[Session], Document], budget: int, seed: int
) -> Selection:
    """Render whole sessions in an order drawn from ``seed`` until they hold ``budget`` tokens, or all of them."""
    documents, used, tokens = [], [], 0
    for index in np.random.default_rng(seed).permutation(len(sessions)).tolist():
        if tokens >= budget:
            break
        document = render(sessions[index])
        documents.append(document)
        used.append(sessions[index])
        tokens += len(document)
    return Selection(documents, used, sum(s.words for s in used), sum(s.words for s in sessions))


def cut_windows(documents: Sequence[Document], window: int, whole_every: int = 4) -> list[Document]:
    """Cut plain-text documents into pieces of ``window`` tokens, leaving every ``whole_every``-th one whole.

    Short windows make a small model learn fast, since attention costs the square of the length; the whole ones show
    it the positions that real sessions reach. No token is lost.
    """
    pieces = []
    for number, document in enumerate(documents):
        step = len(document) if number % whole_every == 0 else window
        for start in range(0, len(document), step):
            part = slice(start, start + step)
            pieces.append(Document(document.name, document.ids[part], document.supervised[part]))
    return pieces
