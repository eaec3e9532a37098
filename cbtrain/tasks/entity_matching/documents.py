"""Pairs as chats of one question and one answer, and as documents whose loss is on the answer alone."""

from __future__ import annotations

from collections.abc import Sequence

from cbtrain.errors import Collected, UserError
from cbtrain.tasks.entity_matching.pair import Pair
from cbtrain.tasks.entity_matching.prompts import Prompt
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.dialogue import Message, SpokenTurn
from cbtrain.tokens.document import Document, trimmed
from cbtrain.tokens.loss_mask import Span
from cbtrain.tokens.mask_check import check_dialogue, check_renderer

CHECKED = 3
"""Pairs whose loss mask is checked by the second method."""

TOLD = 3
"""Pairs that cannot be laid out which an error names word for word."""


def question(pair: Pair, prompt: Prompt) -> list[Message]:
    """Return the chat that is to be answered. Raises UserError as :meth:`Prompt.render`."""
    return [Message("user", prompt.render(pair))]


def exchange(pair: Pair, prompt: Prompt, *, explained: bool = False) -> list[Message]:
    """Return question and answer; with ``explained`` the answer has the file's explanation, as it stands there."""
    answer = f"{pair.answer}{pair.explanation}" if explained else pair.answer
    turn = SpokenTurn(pair.id, 1, (Span(0, len(answer.strip()), 1.0),))
    return [*question(pair, prompt), Message("assistant", answer.strip(), (turn,))]


def pair_documents(
    pairs: Sequence[Pair], renderer: ChatRenderer, prompt: Prompt, *, explained: bool = False
) -> list[Document]:
    """Return one document a pair, in order: its chat in the renderer's format, with the loss on the answer and on the
    token that ends it.

    Raises UserError that names the pairs which cannot be laid out: a special token in a title, say.
    """
    check_renderer(renderer)
    faults = Collected("pairs cannot be laid out", TOLD)
    documents = []
    for number, pair in enumerate(pairs):
        with faults.collected():
            messages = exchange(pair, prompt, explained=explained)
            if number < CHECKED:
                check_dialogue(renderer, messages, pair.id)
            rendering = renderer.render(messages, pair.id)
            documents.append(trimmed(pair.id, rendering.ids, rendering.loss_weights))
    faults.refuse()
    return documents


def require_room(documents: Sequence[Document], positions: int, where: object = None) -> None:
    """Raise UserError if one of ``documents`` is longer than the ``positions`` of the model."""
    longest = max(documents, key=len, default=None)
    if longest is not None and len(longest) > positions:
        problem = f"the pair {longest.name} has {len(longest):,} tokens, and the model {positions:,} positions"
        raise UserError(problem, where=where, hint="Shorten its records, or take a model with a longer context.")
