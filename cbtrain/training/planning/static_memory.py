"""What training holds all the time, by counting: weights, adapters, gradients, the optimizer's numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from cbtrain.model.decoder import Decoder
from cbtrain.model.weights.memory import weight_memory
from cbtrain.training.planning.scenario import Scenario

SMALL = 4096
"""Tensors below so many numbers keep moments of 32 bits in bitsandbytes' optimizers."""

SCALED = 256
"""Numbers that share a scale in them."""


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes on one rank. ``gradients`` are those of a whole step; ``copies`` are of parameters and optimizer, for the
    best and for checkpoints; ``step`` is what the optimizer's step takes for a moment, on top of all of it."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    copies: int
    step: int


def held(decoder: Decoder, setting: Scenario) -> Held:
    """Count for ``decoder`` (on the meta device)."""
    trained, memory = list(decoder.trainable_parameters().values()), weight_memory(decoder)
    numbers, stage, world = sum(p.numel() for p in trained), setting.zero_stage, setting.world
    weights = memory.bytes
    moments = sum(_moments(p, setting.optimizer) for p in trained)
    copies = 2 * 4 * numbers + moments if setting.copies else 0
    adapters = 0 if setting.full else 4 * numbers
    gradients = 4 * numbers
    # ZeRO steps on fp32 masters of its own, the torch engine on such where what is trained is bf16.
    masters = 4 * numbers if stage else sum(4 * p.numel() for p in rounded(trained))
    optimizer = (moments + masters) // (world if stage else 1)
    if stage in (2, 3):
        gradients //= world
    if stage == 3:
        gathered = max(_layer_bytes(decoder), _bytes(decoder.embed_tokens), _bytes(decoder.lm_head))
        weights, adapters = weights // world + gathered, adapters // world
    # Ranks sum one flat copy of their gradients.
    step = 4 * numbers if stage is None and world > 1 else 0
    return Held(weights, adapters, gradients, optimizer, copies, step)


def held_sizes(decoder: Decoder, setting: Scenario) -> list[int]:
    """Bytes of each tensor that is held all the time, as :func:`held` counts them on one process."""
    trained = list(decoder.trainable_parameters().values())
    sizes = [linear.weight_bytes for linear in decoder.linears.values() if not list(linear.parameters(recurse=False))]
    sizes += [p.numel() * p.element_size() for p in decoder.parameters()]
    for parameter in trained:
        moments = _moments(parameter, setting.optimizer)
        sizes += [moments // 2] * 2 if moments else []
        sizes += [4 * parameter.numel()] * (setting.accumulates + (parameter.dtype != torch.float32))
    return sizes


def rounded(trained: list[nn.Parameter]) -> list[nn.Parameter]:
    """Parameters of less than fp32, for which the engine keeps masters and gradients in fp32."""
    return [parameter for parameter in trained if parameter.dtype != torch.float32]


def _moments(parameter: nn.Parameter, optimizer: str) -> int:
    """Bytes of an optimizer's state for ``parameter``."""
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
