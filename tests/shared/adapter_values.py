"""Adapters in tests: their linears, and values far from where training starts, so that every part of a method shows."""

import torch


def lora_modules(decoder):
    """The adapted linears by their path, e.g. ``layers.0.self_attn.q_proj``."""
    return decoder.adapter.modules


def randomize(decoder, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in decoder.adapter.parameters().items():
            if name.endswith("lora_B.weight"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            elif not name.endswith("lora_A.weight"):
                parameter.mul_(1 + torch.randn(parameter.shape, generator=generator) * 0.2)
