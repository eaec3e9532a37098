"""A decoder with random weights in the format of a scenario: all that timing needs of a model, without its files."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from cbtrain.model.adapters.methods import inject
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.linear import Linear
from cbtrain.model.rope import inverse_frequencies
from cbtrain.training.planning.scenario import Scenario

WIDTH = 0.02
"""Standard deviation of the weights."""


def random_decoder(scenario: Scenario, device: torch.device) -> Decoder:
    """Return a decoder on ``device`` with the adapter of ``scenario``, in training mode."""
    a, weight_format = scenario.architecture, scenario.format
    generator = torch.Generator(device).manual_seed(0)
    with torch.device("meta"):
        decoder = Decoder(a, weight_format.linear())
    for name, module in decoder.named_modules():
        if isinstance(module, Linear) and name != "lm_head":
            shape = (module.out_features, module.in_features)
            module.load_weight(WIDTH * torch.randn(shape, device=device, generator=generator), weight_format.compute)
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                filled = torch.ones(parameter.shape, device=device, dtype=weight_format.compute)
                if parameter.dim() > 1:
                    filled.normal_(0, WIDTH, generator=generator)
                setattr(module, leaf, nn.Parameter(filled, requires_grad=False))
    if a.tied_embeddings:
        decoder.lm_head.weight = cast(nn.Parameter, decoder.embed_tokens.weight)
    decoder.frequencies = inverse_frequencies(a.rope, a.head_dim).to(device)
    decoder.format, decoder.attention, decoder.kernels = weight_format, scenario.attention, scenario.kernels
    decoder.activation_checkpointing, decoder.savings = scenario.activation_checkpointing, scenario.savings
    decoder.requires_grad_(False)
    inject(decoder, scenario.adapter)
    return decoder.train()
