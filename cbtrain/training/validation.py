"""Loss and perplexity on documents that are not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cbtrain.model.decoder import Decoder
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import build_pack
from cbtrain.tokens.packing import plan_packs
from cbtrain.training.step import loss_sum


@dataclass(frozen=True, slots=True)
class Loss:
    """Summed cross-entropy (nats) over ``tokens`` supervised tokens."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        return self.total / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        return math.exp(self.mean)


@torch.inference_mode()
def measure_loss(decoder: Decoder, documents: Sequence[Document], pack_tokens: int) -> Loss:
    """The loss of ``decoder`` on the supervised tokens of ``documents``, each counted once, dropout off."""
    was_training = decoder.training
    decoder.eval()
    total, tokens = 0.0, 0
    for indices in plan_packs(np.asarray([len(d) for d in documents], dtype=np.int64), pack_tokens, search=False).packs:
        pack = build_pack([documents[i] for i in indices])
        if pack.supervised:
            total += loss_sum(decoder, pack, weighted=False).item()
            tokens += pack.supervised
    decoder.train(was_training)
    return Loss(total, tokens)
