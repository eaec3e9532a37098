"""Turn sessions into plain text, on which a tiny base model is pretrained: turns in order, no speaker named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cbtrain.tokens.document import Document
from cbtrain.transcripts.types import Role, Session


def plain_document(session: Session, tokenizer: Any, speaker: Role | None = None) -> Document:
    """Return a session as plain text for a base model: its turns in order, an end token after each.

    No role is named: fine-tuning is to teach the therapist's role and the chat layout. With ``speaker`` only that
    role's words and end tokens are supervised, so that the model can be measured on them.
    """
    ids, loss_weights = [tokenizer.bos_token_id], [0.0]
    for turn in session.turns:
        words = tokenizer(turn.text, add_special_tokens=False, verbose=False)["input_ids"]
        ids += [*words, tokenizer.eos_token_id]
        loss_weights += [float(speaker in (None, turn.role))] * (len(words) + 1)
    return Document(session.id, np.asarray(ids, dtype=np.int32), np.asarray(loss_weights, dtype=np.float32))


def plain_documents(
    sessions: Sequence[Session], tokenizer: Any, budget: int | None, seed: int
) -> tuple[list[Document], float]:
    """Return :func:`plain_document` of sessions, in an order drawn from ``seed``, until they have ``budget`` tokens
    (None: all) or all are taken, and the share of all words that these have."""
    documents: list[Document] = []
    tokens = words = 0
    for index in np.random.default_rng(seed).permutation(len(sessions)).tolist():
        if budget is not None and tokens >= budget:
            break
        documents.append(plain_document(sessions[index], tokenizer))
        tokens += len(documents[-1])
        words += sessions[index].words
    offered = sum(session.words for session in sessions)
    return documents, words / offered if offered else 0.0


def cut_windows(documents: Sequence[Document], window: int, whole_every: int = 4) -> list[Document]:
    """Cut plain-text documents into pieces of ``window`` tokens, leaving every ``whole_every``-th one whole.

    A small model learns fast from short windows, since attention costs the square of the length; the whole documents
    show it the positions that real sessions reach. No token is lost. Return the pieces in order.
    """
    pieces = []
    for number, document in enumerate(documents):
        step = len(document) if number % whole_every == 0 else window
        for start in range(0, len(document), step):
            part = slice(start, start + step)
            pieces.append(Document(document.name, document.ids[part], document.loss_weights[part]))
    return pieces
