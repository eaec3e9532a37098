"""Loss and accuracy on pairs of answers that are not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import filler_pack
from cbtrain.training.engines.engine import TrainingEngine
from cbtrain.training.objectives.measures import MEASURES, means_of, nothing
from cbtrain.training.progress import Measured
from cbtrain.training.validation import packs_of


@torch.no_grad()
def validate_pairs(
    engine: TrainingEngine, documents: Sequence[Document], pack_tokens: int, stop: Callable[[], bool] = lambda: False
) -> Measured | None:
    """Return the loss of ``documents``, all pairs, over all ranks together, dropout off; every rank gets the same
    numbers. Return None if ``stop``, asked after each pack, ended it."""
    decoder, packs = engine.decoder, packs_of(documents, pack_tokens)
    sums, was_training, stopped = nothing(decoder.device), decoder.training, False
    decoder.eval()
    for first in range(0, len(packs), engine.world):
        number = first + engine.rank
        terms = engine.terms(packs[number] if number < len(packs) else filler_pack())
        sums += terms.measures
        if stopped := stop():
            break
    decoder.train(was_training)
    if stopped:
        return None
    totals = engine.sum(sums).tolist()
    of = dict(zip(MEASURES, totals, strict=True))
    return Measured(of["weighted_loss"] / of["weight"], pairs=means_of(totals))
