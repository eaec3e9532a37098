"""Temperature, top-k, top-p (Holtzman et al. 2020) and min-p (Nguyen et al. 2024) of many rows, and the draw from what
they keep.

Each filter keeps the tokens above some logit, so that tokens with equal logits are kept or dropped together:

- top-k: fewer than ``top_k`` tokens have a larger logit;
- top-p: the tokens with a larger logit have less than ``top_p`` of the probability (of what top-k keeps);
- min-p: the probability is at least ``min_p`` times the largest.

Probabilities are rounded to multiples of a power of two whose sum is exact in a double, in whatever order it is taken,
so that :func:`among_candidates` and :func:`among_all` keep the same tokens, whatever the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.sampling.noise import gumbel

CANDIDATES = 128
"""Likeliest tokens that :func:`among_candidates` looks at."""
UNDECIDED = -1
"""In place of a token: the filters may keep more than the candidates."""
CACHED = 1 << 16
"""Numbers of the vocabulary's length times rows that a CPU works on at a time, so that they stay in its cache."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Settings of n rows: ``temperature [n, 1]`` fp32; ``top_p [n, 1]`` fp64, infinite where it is off; ``log_min_p
    [n, 1]`` fp32, minus infinity where min-p is off; ``top_k``, 0 where it is off."""

    temperature: Tensor
    top_p: Tensor
    log_min_p: Tensor
    top_k: list[int]
    has_top_p: bool
    has_min_p: bool

    @classmethod
    def of(cls, configs: Sequence[SamplingConfig], vocabulary: int, device: torch.device) -> Filters:
        """Return the filters of ``configs``, one a row, on ``device``."""
        rows = [
            [
                config.temperature,
                config.top_p if config.top_p < 1 else math.inf,
                math.log(config.min_p) if config.min_p else -math.inf,
            ]
            for config in configs
        ]
        temperature, top_p, log_min_p = torch.tensor(rows, dtype=torch.float64).to(device).split(1, dim=1)
        return cls(
            temperature.float(),
            top_p,
            log_min_p.float(),
            [config.top_k if config.top_k < vocabulary else 0 for config in configs],
            any(config.top_p < 1 for config in configs),
            any(config.min_p for config in configs),
        )


def fits_candidates(config: SamplingConfig) -> bool:
    """Return whether :func:`among_candidates` may decide a draw with ``config``: it has a filter, and no larger
    top-k."""
    return config.top_k <= CANDIDATES and bool(config.top_k or config.top_p < 1 or config.min_p)


def among_all(distances: Tensor, filters: Filters, keys: Tensor) -> Tensor:
    """Return a token ``[n]`` (int64) of each row: the largest sum of Gumbel noise and distance among the kept tokens.

    ``distances [n, vocabulary]`` (fp32) are logits less the row's largest, over the temperature; they change in place.
    ``keys [n, 1]`` are the noise's. With top-p, the token is drawn from all, and if top-p does not keep it, again from
    those with larger logits: the same token as a draw from the kept ones, without a sort.
    """
    for row, top_k in enumerate(filters.top_k):
        if top_k:
            smallest = distances[row].topk(top_k, sorted=False).values.amin()
            distances[row].masked_fill_(distances[row] < smallest, -math.inf)
    if distances.device.type != "cpu":
        return _draw_from(distances, filters.log_min_p, filters.top_p, keys, filters)
    rows = max(CACHED // distances.shape[1], 1)
    split = (tensor.split(rows) for tensor in (distances, filters.log_min_p, filters.top_p, keys))
    parts = zip(*split, strict=True)
    return torch.cat([_draw_from(part, log_min_p, top_p, key, filters) for part, log_min_p, top_p, key in parts])


def _draw_from(distances: Tensor, log_min_p: Tensor, top_p: Tensor, keys: Tensor, filters: Filters) -> Tensor:
    """Return a token ``[n]`` of each row of ``distances`` after top-k."""
    scores = gumbel(keys, torch.arange(distances.shape[1], device=distances.device)).add_(distances)
    if filters.has_min_p:
        scores.masked_fill_(distances < log_min_p, -math.inf)
    tokens = scores.argmax(-1, keepdim=True)
    if not filters.has_top_p:
        return tokens[:, 0]
    masses = _masses(distances, distances.shape[1])
    limits = masses.sum(-1, keepdim=True) * top_p
    while True:
        chosen = distances.gather(1, tokens)
        refused = masses.masked_fill(distances <= chosen, 0).sum(-1, keepdim=True) >= limits
        if not bool(refused.any()):
            return tokens[:, 0]
        tokens = scores.masked_fill_(refused & (distances <= chosen), -math.inf).argmax(-1, keepdim=True)


def among_candidates(distances: Tensor, filters: Filters, keys: Tensor) -> Tensor:
    """Return what :func:`among_all` returns, ``[n]`` (int64), but UNDECIDED in rows whose filters may keep a token that
    is not among the CANDIDATES likeliest. No ``top_k`` is larger than that. Does not wait for the device, and leaves
    ``distances`` as they are."""
    vocabulary = distances.shape[1]
    values, ids = distances.topk(min(CANDIDATES, vocabulary))
    floors = _floors(distances, values, filters)
    scores = gumbel(keys, ids).add_(values).masked_fill_(values < floors, -math.inf)
    # Candidates come by logit; of equal scores the lowest id wins, as in argmax over all.
    tokens = ids.masked_fill(scores < scores.amax(-1, keepdim=True), vocabulary).amin(-1)
    if len(values[0]) == vocabulary:
        return tokens
    return tokens.masked_fill(values[:, -1] >= floors[:, 0], UNDECIDED)


def _floors(distances: Tensor, values: Tensor, filters: Filters) -> Tensor:
    """Return the smallest kept distance ``[n, 1]`` of each row, as far as ``values``, the row's largest distances in
    descending order, tell: where it is not above the last of them, more tokens may be kept."""
    floors = filters.log_min_p
    off = kth = total = None
    if any(filters.top_k):
        places = torch.tensor([[max(top_k, 1) - 1] for top_k in filters.top_k]).to(values.device)
        off = torch.tensor([[not top_k] for top_k in filters.top_k]).to(values.device)
        kth = values.gather(1, places).masked_fill_(off, -math.inf)
        floors = torch.maximum(floors, kth)
    if not filters.has_top_p:
        return floors
    masses = _masses(values, distances.shape[1])
    if not all(filters.top_k):
        total = _total(distances)
    if kth is not None and off is not None:
        within = (masses * (values >= kth)).sum(-1, keepdim=True)
        total = within if total is None else torch.where(off, total, within)
    assert total is not None
    larger = masses.cumsum(-1) - masses
    # At least one, also in a row of NaN.
    kept = (larger < total * filters.top_p).sum(-1, keepdim=True).clamp_(min=1)
    return torch.maximum(floors, values.gather(1, kept - 1))


def _total(distances: Tensor) -> Tensor:
    """Return the mass ``[n, 1]`` of all tokens."""
    rows = max(CACHED // distances.shape[1], 1) if distances.device.type == "cpu" else len(distances)
    vocabulary = distances.shape[1]
    return torch.cat([_masses(part, vocabulary).sum(-1, keepdim=True) for part in distances.split(rows)])


def _masses(distances: Tensor, vocabulary: int) -> Tensor:
    """Return ``exp(distances)`` in fp64 as whole numbers: as large as a sum over the ``vocabulary`` allows, which must
    be exact in 53 bits. The largest logit has 2^38 with 16,384 words."""
    unit = 2.0 ** (53 - vocabulary.bit_length())
    return distances.to(torch.float64).exp_().mul_(unit).trunc_()
