"""Activation checkpointing of layers that autograd runs: which results are kept for the backward pass, and which are
recomputed there. The levels are those of :data:`cbtrain.model.fused.levels.LEVELS`.

All random numbers in a layer are keyed (:mod:`cbtrain.model.adapters.dropout`), so recomputed results are the same to
the last bit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts


def checkpointed(layer: nn.Module, level: str, *inputs: Any) -> Tensor:
    """Return ``layer(*inputs)``, of which only what ``level`` names is kept for the backward pass: ``full`` the inputs,
    ``selective`` also the results of attention (as Korthikanti et al. 2022, arXiv 2205.05198, keep the rest and not
    attention, for models without a fused kernel), ``mlp`` all but what lies inside the MLP."""
    kept: Any = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    if level == "mlp":
        out: Tensor = layer(*inputs, through_mlp=partial(kept, layer.mlp))
        return out
    context: dict[str, Any] = (
        {"context_fn": partial(create_selective_checkpoint_contexts, _keep)} if level == "selective" else {}
    )
    out = kept(layer, *inputs, **context)
    return out


def _keep(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    attention = "attention" in operator.name() or "varlen" in operator.name()
    return CheckpointPolicy.MUST_SAVE if attention else CheckpointPolicy.PREFER_RECOMPUTE
