"""Tokens that a base model was hardly ever trained on: the norms of their rows in the output matrix are small."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from cbtrain.model.decoder import Decoder

WEAK = 0.5
"""Share of the median row's norm below which a token counts as untrained.

Base models carry chat tokens that pre-training never produced: their rows stay near zero, and a frozen head can then
hardly choose them (Qwen3 issues 1064 and 927).
"""

SAMPLE = 20_000
"""Rows from which the median norm is taken."""


@torch.inference_mode()
def weak_rows(decoder: Decoder, ids: Iterable[int]) -> dict[int, float]:
    """Return those of ``ids`` whose rows in the output matrix are untrained, with their norm ÷ the median norm."""
    head = decoder.lm_head.weight
    step = max(1, head.shape[0] // SAMPLE)
    usual = head[::step].float().norm(dim=1).median().item()
    ratios = {}
    for token in ids:
        ratio = head[token].float().norm().item() / max(usual, 1e-12)
        if ratio < WEAK:
            ratios[token] = ratio
    return ratios
