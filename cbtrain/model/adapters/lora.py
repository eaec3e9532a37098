"""LoRA (Hu et al. 2021, arXiv 2106.09685): ``y = W x + (alpha / r) · B A dropout(x)`` beside a frozen ``W``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtrain.errors import UserError
from cbtrain.model.config import LoraConfig
from cbtrain.model.decoder import Decoder


class LoraLinear(nn.Module):
    """A frozen linear with a low-rank side path; ``enabled`` switches the side path off without touching weights."""

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.base = base
        self.scale = config.alpha / config.rank
        self.dropout = config.dropout
        self.enabled = True
        # fp32 whatever the base is: an optimizer step on bf16 adapters rounds most small updates away.
        self.lora_A = nn.Parameter(torch.empty(config.rank, base.in_features, device=base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, config.rank, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        if not self.enabled:
            return out
        side = F.dropout(x, self.dropout, self.training).to(self.lora_A.dtype)
        side = F.linear(F.linear(side, self.lora_A), self.lora_B)
        return out + (self.scale * side).to(out.dtype)


def inject(decoder: Decoder, config: LoraConfig, *, seed: int = 0) -> list[nn.Parameter]:
    """Freeze ``decoder`` and put a :class:`LoraLinear` in place of each target linear; returns the new parameters.

    A is Kaiming-uniform as in the paper's code and B is zero, so that training starts from the base. Raises UserError
    on a decoder that already has an adapter.
    """
    if lora_modules(decoder):
        raise UserError("this decoder already has an adapter", fix="Load the base again.")
    decoder.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, module in list(decoder.named_modules()):
        owner, _, leaf = name.rpartition(".")
        if leaf not in config.targets or not isinstance(module, nn.Linear):
            continue
        lora = LoraLinear(module, config)
        bound = math.sqrt(1 / module.in_features)  # kaiming_uniform with a = sqrt(5)
        values = torch.empty(lora.lora_A.shape).uniform_(-bound, bound, generator=generator)
        lora.lora_A.data.copy_(values)
        setattr(decoder.get_submodule(owner), leaf, lora)
    return trainable(decoder)


def lora_modules(decoder: Decoder) -> dict[str, LoraLinear]:
    """The adapted linears by their path, e.g. ``layers.0.self_attn.q_proj``."""
    return {name: module for name, module in decoder.named_modules() if isinstance(module, LoraLinear)}


def trainable(decoder: Decoder) -> list[nn.Parameter]:
    """Parameters that a step updates, in a fixed order."""
    return [parameter for parameter in decoder.parameters() if parameter.requires_grad]


@contextmanager
def adapter_enabled(decoder: Decoder, enabled: bool) -> Iterator[None]:
    """Run the body with the adapter on or off: one set of weights serves the base arm and the tuned arm."""
    modules = lora_modules(decoder).values()
    before = [module.enabled for module in modules]
    for module in modules:
        module.enabled = enabled
    try:
        yield
    finally:
        for module, was in zip(modules, before, strict=True):
            module.enabled = was
