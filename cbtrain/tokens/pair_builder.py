"""Build documents from pairs of answers: what both answers share, once, then the two as branches.

Both sessions of a pair are rendered whole, as they are in training on single answers and in serving, and compared
token by token. So a chat template that changes the history by what follows it, or a tokenizer that joins the prompt's
end to the answer's beginning, makes the shared part shorter, and nothing wrong.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.config import TokensConfig
from cbtrain.tokens.document import Branches, Document, trimmed
from cbtrain.tokens.document_builder import BuiltUnit, DocumentBuilder, Unit, place_of
from cbtrain.transcripts.preference import rejected_session
from cbtrain.transcripts.types import Role

SKIP_LONG = "shorten the prompt, or leave such pairs out with corpus.skip_bad=true."


class PairBuilder(DocumentBuilder):
    """Builds one document for each pair; the therapist's turns of both answers have a loss weight. With
    ``prompt_counts`` what both share has one too: the first term of ORPO may count it."""

    def __init__(
        self,
        renderer: ChatRenderer,
        speaker: Role,
        config: TokensConfig,
        pack_tokens: int,
        positions: int,
        *,
        prompt_counts: bool = False,
    ) -> None:
        super().__init__(renderer, speaker, "therapist", config, pack_tokens, positions)
        self.prompt_counts = prompt_counts
        if config.document == "course":
            hint = "Set tokens.document=session."
            raise UserError("a pair of answers is a document of its own", where="tokens.document", hint=hint)
        if config.recipe == "paper":
            hint = "Set tokens.recipe=whole, and another tokens.format if that was alpaca."
            raise UserError("recipe paper makes records of single answers, not pairs", where="tokens.recipe", hint=hint)

    @property
    def makes(self) -> dict[str, Any]:
        return {"pairs": True, "prompt_counts": self.prompt_counts}

    def build(self, unit: Unit) -> BuiltUnit:
        """Return the document of a pair. Raises UserError, with its place, if ``unit`` is no pair, the pair is longer
        than a pack or the model's context, or the chat format refuses it or does not tell its answers apart."""
        name = place_of(unit)
        (session,) = unit.sessions
        if session.preference is None:
            hint = "Give records with prompt, chosen and rejected, or set therapist.objective=sft."
            raise UserError("it is no pair of answers", where=name, hint=hint)
        chosen = self._rendered(unit, name)
        rejected = self._rendered(replace(unit, sessions=(rejected_session(session),)), name)
        document = joined(chosen, rejected, name, session.preference.weight, prompt_counts=self.prompt_counts)
        whole = len(chosen) + len(rejected)
        self._refuse_long(len(document), name)
        return BuiltUnit([document], whole, None)

    def _rendered(self, unit: Unit, name: str) -> Document:
        rendering = self.renderer.render(self.messages(unit), name)
        return trimmed(unit.name, rendering.ids, rendering.loss_weights)

    def _refuse_long(self, tokens: int, name: str) -> None:
        limit = min(self.limit, self.positions)
        if tokens <= limit:
            return
        where, raised = "a pack holds", "Raise therapist.pack_tokens, "
        if limit == self.positions:
            where, raised = "the model has positions for", "Take a model with a longer context, "
        elif self.config.document_tokens is not None:
            where, raised = "tokens.document_tokens allows", "Raise tokens.document_tokens, "
        raise UserError(f"the pair has {tokens:,} tokens, and {where} {limit:,}", where=name, hint=raised + SKIP_LONG)


def joined(
    chosen: Document, rejected: Document, where: str, weight: float = 1.0, *, prompt_counts: bool = False
) -> Document:
    """Return the documents of a pair's two answers as one, with what both begin with once: as many tokens as are alike
    and before the first supervised one. With ``prompt_counts`` these have a loss weight. Raises UserError, with the
    place ``where``, if there are none, or if the documents do not differ."""
    if not (chosen.supervised.any() and rejected.supervised.any()):
        problem, hint = "no token of one of its answers is supervised", "Change tokens.weights."
        raise UserError(problem, where=where, hint=hint)
    if np.array_equal(chosen.ids, rejected.ids):
        hint = "Leave it out: cleaning or the chat format has made its answers equal."
        raise UserError("chosen and rejected have the same tokens", where=where, hint=hint)
    first_supervised = (int(document.supervised.argmax()) for document in (chosen, rejected))
    border = min(_alike(chosen.ids, rejected.ids), *first_supervised) - 1  # this token begins each branch
    if border < 1:
        problem, hint = "the chat format puts nothing before its answers", "Choose another tokens.format."
        raise UserError(problem, where=where, hint=hint)
    ids = np.concatenate([chosen.ids, rejected.ids[border:]])
    loss_weights = np.concatenate([chosen.loss_weights, rejected.loss_weights[border:]])
    if prompt_counts:
        # The first token of the chosen branch too: it stands where the last shared one does.
        loss_weights[1 : border + 1] = 1
    branches = Branches(border, len(chosen), weight)
    return Document(chosen.name, ids, loss_weights, chosen.trimmed + rejected.trimmed, branches)


def _alike(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Return how many tokens both begin with."""
    count = min(len(a), len(b))
    different = np.flatnonzero(a[:count] != b[:count])
    return int(different[0]) if len(different) else count
