"""Which layers the fused function computes, and which are left to autograd."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cbtrain.model.adapters.lora_linear import LoraLinear
from cbtrain.model.fused.layer import Weights, sharing_input
from cbtrain.model.linears.linear import Linear


def obstacle(block: Any) -> str | None:
    """Return why :func:`cbtrain.model.fused.layer.fused_layer` cannot compute ``block`` in training, or None."""
    for module in (module for modules in sharing_input(block) for module in modules):
        base = module
        if isinstance(module, LoraLinear):
            if type(module) is not LoraLinear:
                return "DoRA"
            if module.dropout.rate > 0:
                return "LoRA dropout"
            base = module.base
        if not isinstance(base, Linear):
            return f"a linear of the kind {type(base).__name__}"
        for parameter in base.parameters(recurse=False):
            if hasattr(parameter, "ds_id"):
                return "ZeRO stage 3"
            if parameter.requires_grad:
                return "trained base weights"
    norms = [block.input_layernorm, block.post_attention_layernorm]
    norms += [block.self_attn.q_norm, block.self_attn.k_norm] if block.self_attn.qk_norm else []
    if any(norm.weight.requires_grad for norm in norms):
        return "trained norms"
    return None


def join_weights(blocks: Iterable[Any]) -> None:
    """Join the weights of those of ``blocks`` that will be fused, once they are where they stay."""
    for block in blocks:
        if obstacle(block) is None:
            for joined in Weights.of(block).joined:
                joined.join()
