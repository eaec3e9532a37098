"""General text, as a model knows it before it is fine-tuned: passages that ship, or a user's file, as documents."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbtrain.errors import UserError
from cbtrain.files import expanded
from cbtrain.tokens.document import Document
from cbtrain.transcripts.source import read_text, unix_lines

BETWEEN = "* * *"
"""The line between two passages of a file."""

WINDOW = 1024
"""Tokens of a document at most: a number of its own, so that the text is cut alike whatever packs training has."""

HINT = "Name a UTF-8 text file in training.forgetting.text, or leave it out: a text ships."


def read_passages(path: str | None) -> list[str]:
    """Return the passages of the file ``path`` (None: those that ship), which lines of :data:`BETWEEN` divide.

    Raises UserError if the file is missing, empty or not UTF-8.
    """
    if path is None:
        shipped = importlib.resources.files(__package__) / "general" / "text.txt"
        text = shipped.read_text(encoding="utf-8")
    else:
        text = _read(expanded(path))
    passages: list[list[str]] = [[]]
    for line in unix_lines(text).split("\n"):
        if line.strip() == BETWEEN:
            passages.append([])
        else:
            passages[-1].append(line)
    found = [passage for lines in passages if (passage := "\n".join(lines).strip())]
    if not found:
        raise UserError("it holds no text", where=path, hint=HINT)
    return found


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except UserError as error:
        raise UserError(error.what, where=error.where, hint=HINT) from None


def passage_documents(
    passages: Sequence[str], tokenizer: Any, positions: int, vocabulary: int | None
) -> list[Document]:
    """Return ``passages`` as plain text, in windows of :data:`WINDOW` tokens or as many as the model has
    ``positions``. All tokens count but the one that begins a text, which stands before each window if ``tokenizer`` has
    one.

    Raises UserError on a token beyond the ``vocabulary`` (None: not checked).
    """
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    room = max(1, min(WINDOW, positions) - len(begin))
    documents = []
    for number, passage in enumerate(passages, 1):
        ids = tokenizer(passage, add_special_tokens=False, verbose=False)["input_ids"]
        if vocabulary is not None and max(ids, default=0) >= vocabulary:
            problem = f"token {max(ids)} occurs in it, but the model has only {vocabulary} embeddings"
            raise UserError(problem, where=f"passage {number}")
        for first in range(0, len(ids), room):
            window = [*begin, *ids[first : first + room]]
            loss_weights = np.ones(len(window), dtype=np.float32)
            loss_weights[0] = 0
            documents.append(Document(f"passage {number}", np.asarray(window, dtype=np.int32), loss_weights))
    return documents


def first_tokens(documents: Sequence[Document], tokens: int) -> list[Document]:
    """Return the beginning of ``documents`` in which the loss counts as many ``tokens``; all if they have fewer. The
    first token of a document is predicted by nothing, so it is not counted."""
    taken: list[Document] = []
    for document in documents:
        if tokens <= 0:
            break
        counted = np.flatnonzero(document.supervised)
        counted = counted[counted > 0]
        if not len(counted):
            continue
        end = int(counted[:tokens][-1]) + 1
        taken.append(Document(document.name, document.ids[:end], document.loss_weights[:end]))
        tokens -= len(counted)
    return taken
