"""Sessions as plain text, which a tiny base model is made from: passages one after another, no speaker named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cbtrain.tokens.document import Document
from cbtrain.transcripts.types import Role, Session


def plain_document(session: Session, tokenizer: Any, speaker: Role | None = None) -> Document:
    """A session as plain text for a base model: its passages one after another, each closed by the end token.

    No role is named: which voice is the therapist's, and the chat layout, is what fine-tuning is to teach. With
    ``speaker`` only that role's words and end tokens are supervised, so that the model can be measured on them.
    """
    ids, loss_weights = [tokenizer.bos_token_id], [0.0]
    for turn in session.turns:
        words = tokenizer(turn.text, add_special_tokens=False, verbose=False)["input_ids"]
        ids += [*words, tokenizer.eos_token_id]
        loss_weights += [float(speaker in (None, turn.role))] * (len(words) + 1)
    return Document(session.id, np.asarray(ids, dtype=np.int32), np.asarray(loss_weights, dtype=np.float32))


def plain_documents(
    sessions: Sequence[Session], tokenizer: Any, budget: int, seed: int
) -> tuple[list[Document], float]:
    """:func:`plain_document` of sessions in an order drawn from ``seed`` until they hold ``budget`` tokens or all are
    taken, and which share of the words that is."""
    documents: list[Document] = []
    tokens = words = 0
    for index in np.random.default_rng(seed).permutation(len(sessions)).tolist():
        if tokens >= budget:
            break
        documents.append(plain_document(sessions[index], tokenizer))
        tokens += len(documents[-1])
        words += sessions[index].words
    offered = sum(session.words for session in sessions)
    return documents, words / offered if offered else 0.0


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
            pieces.append(Document(document.name, document.ids[part], document.loss_weights[part]))
    return pieces
