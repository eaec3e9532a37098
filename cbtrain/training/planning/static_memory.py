"""Static memory of training, by counting: weights, adapters, gradients and the optimizer's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cbtrain.model.decoder import Decoder
from cbtrain.model.weights.memory import weight_memory
from cbtrain.training.planning.scenario import Scenario

SMALL = 4096
"""Tensors with fewer elements keep moments of 32 bits in bitsandbytes' optimizers."""

SCALED = 256
"""Elements that share a scale in them."""


@dataclass(frozen=True, slots=True)
class PredictedStaticMemory:
    """Bytes that one rank holds through a whole step. ``gradients`` are summed over the step; ``copies`` are of
    parameters and optimizer, for the best validation and for checkpoints; ``step`` is temporary: what the optimizer's
    step allocates in addition."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    copies: int
    step: int


def predict_static_memory(decoder: Decoder, scenario: Scenario) -> PredictedStaticMemory:
    """Return the static memory of training ``decoder`` (on the meta device), in bytes on one rank."""
    trained, memory = list(decoder.trainable_parameters().values()), weight_memory(decoder)
    parameters, stage, world = sum(p.numel() for p in trained), scenario.zero_stage, scenario.world
    weights = memory.bytes
    own = _own_state(decoder)
    moments = sum(_moments(p, scenario.optimizer) for p in trained) if own is None else own
    fixed = sum(t.numel() * t.element_size() for t in (decoder.adapter.fixed() if decoder.adapter else {}).values())
    copies = 2 * (4 * parameters + fixed) + moments if scenario.copies else 0
    adapters = 0 if scenario.full else 4 * parameters + fixed
    gradients = 4 * parameters
    # ZeRO steps on fp32 master weights; the torch engine keeps them only of bf16 parameters.
    masters = 4 * parameters if stage else sum(4 * p.numel() for p in rounded(trained))
    optimizer = (moments + masters) // (world if stage else 1)
    if stage in (2, 3):
        gradients //= world
    if stage == 3:
        gathered = max(_layer_bytes(decoder), _bytes(decoder.embed_tokens), _bytes(decoder.lm_head))
        weights, adapters = weights // world + gathered, adapters // world
    # Ranks sum one flat copy of their gradients.
    step = 4 * parameters if stage is None and world > 1 else 0
    return PredictedStaticMemory(weights, adapters, gradients, optimizer, copies, step)


def static_tensor_sizes(decoder: Decoder, scenario: Scenario) -> list[int]:
    """Return the bytes of each tensor of the static memory, as :func:`predict_static_memory` counts them on one
    process."""
    trained = list(decoder.trainable_parameters().values())
    sizes = [linear.weight_bytes for linear in decoder.linears.values() if not list(linear.parameters(recurse=False))]
    sizes += [p.numel() * p.element_size() for p in decoder.parameters()]
    sizes += [t.numel() * t.element_size() for t in (decoder.adapter.fixed() if decoder.adapter else {}).values()]
    if (own := _own_state(decoder)) is None:
        return sizes + optimizer_tensor_sizes(trained, scenario)
    return sizes + [own // len(trained)] * len(trained) + [4 * p.numel() for p in trained if scenario.accumulates]


def optimizer_tensor_sizes(trained: Sequence[nn.Parameter], scenario: Scenario) -> list[int]:
    """Return the bytes of each tensor that the engine holds beside the ``trained`` parameters through a step."""
    sizes: list[int] = []
    for parameter in trained:
        moments = _moments(parameter, scenario.optimizer)
        sizes += [moments // 2] * 2 if moments else []
        sizes += [4 * parameter.numel()] * (scenario.accumulates + (parameter.dtype != torch.float32))
    return sizes


def rounded(trained: list[nn.Parameter]) -> list[nn.Parameter]:
    """Return the parameters in less than fp32, for which the engine keeps masters and gradients in fp32."""
    return [parameter for parameter in trained if parameter.dtype != torch.float32]


def _own_state(decoder: Decoder) -> int | None:
    """Return the bytes of the optimizer's state if the method brings one of its own, else None."""
    own = decoder.adapter.own_training(1e-4, (0.9, 0.95), 0.0) if decoder.adapter else None
    if own is None:
        return None
    own.close()
    return own.state_bytes


def _moments(parameter: nn.Parameter, optimizer: str) -> int:
    """Return the bytes of an optimizer's state for ``parameter``."""
    count = parameter.numel()
    if optimizer == "sgd":
        return 0
    if "8bit" in optimizer and count >= SMALL:
        return 2 * count + 2 * 4 * -(-count // SCALED)
    return 8 * count


def _layer_bytes(decoder: Decoder) -> int:
    linears = [linear for name, linear in decoder.linears.items() if name.startswith("layers.0.")]
    return sum(linear.weight_bytes for linear in linears)


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters(recurse=False))
