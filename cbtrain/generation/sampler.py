"""Draw the next token of one conversation from its own random stream."""

from __future__ import annotations

import torch
from torch import Tensor

from cbtrain.generation.config import SamplingConfig


def sample(logits: Tensor, config: SamplingConfig, generator: torch.Generator) -> int:
    """Return a token id from ``logits [vocabulary]`` after temperature, top-k and top-p (Holtzman et al. 2020).

    ``generator`` (on the CPU) belongs to the request, so that its draws do not depend on what else is in the batch.
    """
    if config.temperature == 0:
        return int(logits.argmax())
    values, ids = logits.float().cpu().sort(descending=True)
    # Shifted first: the largest stays 0 and the others may become -inf, however small the temperature.
    values = (values - values[0]) / config.temperature
    if config.top_k:
        values, ids = values[: config.top_k], ids[: config.top_k]
    probabilities = values.softmax(-1)
    # Keep every token before which less than top_p has been collected: always at least one.
    kept = int((probabilities.cumsum(-1) - probabilities < config.top_p).sum())
    return int(ids[torch.multinomial(probabilities[:kept], 1, generator=generator)])
