"""Activation checkpointing: which results of a layer are kept for the backward pass, and which are recomputed there.

All random numbers in a layer are keyed (:mod:`cbtrain.model.adapters.dropout`), so recomputed results are the same to
the last bit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

LEVELS = ("none", "selective", "full")

CHEAP_DEPTH = 128
"""Matrix products over a shorter axis are recomputed: an adapter's B costs little, and its output is as large as any
other."""

PRODUCTS = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1}
"""Matrix products, with the position of the left matrix among their arguments; its last axis is summed over."""


def checkpointed(layer: nn.Module, level: str, *inputs: Any) -> Tensor:
    """Return ``layer(*inputs)``, of which only what ``level`` names is kept for the backward pass.

    ``full`` keeps the inputs, ``selective`` also the results of large matrix products and of attention, so that norms,
    activations and products of small matrices are what is computed again (Korthikanti et al. 2022, arXiv 2205.05198,
    chose the other way round, for models without fused attention).
    """
    context: dict[str, Any] = (
        {"context_fn": partial(create_selective_checkpoint_contexts, _keep)} if level == "selective" else {}
    )
    out: Tensor = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False, **context)
    return out


def _keep(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    weight_index = PRODUCTS.get(operator)
    if weight_index is not None:
        large = args[weight_index].shape[-1] >= CHEAP_DEPTH
    else:
        large = "attention" in operator.name() or "varlen" in operator.name()
    return CheckpointPolicy.MUST_SAVE if large else CheckpointPolicy.PREFER_RECOMPUTE
