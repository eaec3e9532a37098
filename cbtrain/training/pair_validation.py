"""Loss and accuracy on pairs of answers that are not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import filler_pack
from cbtrain.training.engines.engine import TrainingEngine
from cbtrain.training.objectives.measures import MEASURES, means_of, nothing
from cbtrain.training.validation import packs_of


@dataclass(frozen=True, slots=True)
class PairValidation:
    """``loss`` is the objective's, a mean over pairs by their weights; ``pairs`` has what
    :func:`~.objectives.measures.means_of` says."""

    loss: float
    pairs: dict[str, Any]

    @property
    def error(self) -> float:
        """Share of pairs whose rejected answer the model prefers, or whose answers it holds for equal."""
        return float(1 - self.pairs["accuracy"])


@torch.no_grad()
def validate_pairs(
    engine: TrainingEngine, documents: Sequence[Document], pack_tokens: int, stop: Callable[[], bool] = lambda: False
) -> PairValidation | None:
    """Return the loss of ``documents``, all pairs, over all ranks together, dropout off; every rank gets the same
    numbers. Return None if ``stop``, asked after each pack, ended it."""
    decoder, packs = engine.decoder, packs_of(documents, pack_tokens)
    sums, was_training, stopped = nothing(decoder.device), decoder.training, False
    decoder.eval()
    for first in range(0, len(packs), engine.world):
        number = first + engine.rank
        terms = engine.terms(packs[number] if number < len(packs) else filler_pack())
        sums += 0 if terms.measures is None else terms.measures
        if stopped := stop():
            break
    decoder.train(was_training)
    if stopped:
        return None
    totals = engine.sum(sums).tolist()
    of = dict(zip(MEASURES, totals, strict=True))
    return PairValidation(of["weighted_loss"] / of["weight"], means_of(totals))
