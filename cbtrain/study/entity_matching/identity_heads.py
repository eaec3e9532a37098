"""A beginning for small decoders that are to compare words: heads that attend to equal tokens from the first step.

After mimetic initialization (Trockman and Kolter 2023, arXiv 2305.09828): the product of query and key matrices is
near the identity. From random weights a model of this size needs many times as many tokens to compare words at all.
"""

from __future__ import annotations

import math

import torch

from cbtrain.model.decoder import Decoder

SCALE = 1.4
"""Length of the rows of the query and key matrices."""

DISTANCE = 12
"""Tokens between two words that are to be compared. Channels that RoPE turns by more than a radian on the way are set
to zero: equal tokens would not look equal in them."""

WIDER = 4.0
"""Times the usual size (0.02) of the other random matrices, which is meant for wide models."""
WIDER_EMBEDDINGS = 2.0


@torch.no_grad()
def add_identity_heads(decoder: Decoder, seed: int) -> None:
    """Let one half of the heads of each layer of ``decoder``, which has random weights and as many key heads as query
    heads, attend to equal tokens; make other matrices wider. Equal for equal ``seed``."""
    a = decoder.architecture
    generator = torch.Generator().manual_seed(seed)
    turned = DISTANCE * a.rope.theta ** (-torch.arange(a.head_dim // 2) / (a.head_dim // 2))
    kept = (turned < 1.0).repeat(2).unsqueeze(1)
    parameters = dict(decoder.named_parameters())
    for name, parameter in parameters.items():
        if parameter.dim() == 2:
            parameter.mul_(WIDER_EMBEDDINGS if name.startswith("embed_tokens") else WIDER)
    for name, queries in parameters.items():
        if not name.endswith("q_proj.weight"):
            continue
        keys = parameters[name.replace("q_proj", "k_proj")]
        for head in range(math.ceil(a.heads / 2)):
            random = torch.randn(a.hidden, a.head_dim, generator=generator)
            same = torch.linalg.qr(random)[0].T * SCALE * kept
            rows = slice(head * a.head_dim, (head + 1) * a.head_dim)
            queries[rows] = same
            keys[rows] = same
