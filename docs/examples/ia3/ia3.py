"""IA³ (Liu et al. 2022, arXiv 2205.05638) as a method of cbtrain, in a package of its own.

The outputs of key and value and the input of ``down_proj`` are multiplied by one number each. They begin at 1, and are
all that is trained.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from cbtrain.model.adapters.adapted_linear import AdaptedLinear
from cbtrain.model.adapters.linears_adapter import LinearsAdapter
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.linear import Linear
from cbtrain.model.methods import Method


class Ia3Settings(BaseModel):
    """What a user sets under ``therapist.options``."""

    model_config = ConfigDict(extra="forbid")

    attention: bool = Field(True, description="scale the outputs of key and value")
    mlp: bool = Field(True, description="scale the input of down_proj")


class Scaled(AdaptedLinear):
    """``y = l · (W x + b)`` with a number for each output."""

    changes_bias = True

    def __init__(self, base: Linear, path: str, device: torch.device) -> None:
        super().__init__(base, path)
        self.scale = nn.Parameter(torch.ones(self.width(base), device=device))

    @staticmethod
    def width(base: Linear) -> int:
        return base.out_features

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.ones_(self.scale)

    def tensors(self) -> dict[str, nn.Parameter]:
        return {"scale": self.scale}

    def adapt(self, x: Tensor, out: Tensor) -> Tensor:
        return out * self.scale.to(out.dtype)

    def effective_weight(self, weight: Tensor) -> Tensor:
        return self.scale.detach()[:, None] * weight.float()

    def effective_bias(self, bias: Tensor) -> Tensor:
        return self.scale.detach() * bias.float()


class ScaledInput(Scaled):
    """``y = W (l · x) + b`` with a number for each input."""

    changes_bias = False

    @staticmethod
    def width(base: Linear) -> int:
        return base.in_features

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.base(x * self.scale.to(x.dtype)) if self.enabled else self.base(x)
        return scaled

    def adapt(self, x: Tensor, out: Tensor) -> Tensor:
        return self.forward(x)

    def effective_weight(self, weight: Tensor) -> Tensor:
        return self.scale.detach() * weight.float()

    def effective_bias(self, bias: Tensor) -> Tensor:
        return bias.float()


def attach(decoder: Decoder, settings: Ia3Settings, device: torch.device) -> LinearsAdapter[Scaled]:
    """Put the scales into ``decoder``; return its adapter."""
    modules: dict[str, Scaled] = {}
    for path, base in decoder.linears.items():
        if settings.attention and path.endswith(("k_proj", "v_proj")):
            modules[path] = Scaled(base, path, device)
        if settings.mlp and path.endswith("down_proj"):
            modules[path] = ScaledInput(base, path, device)
    return LinearsAdapter(decoder, settings, modules)


METHOD = Method("ia3", Ia3Settings, "ia3:attach", "IA³: a factor for keys, values and the MLP's inner numbers")
