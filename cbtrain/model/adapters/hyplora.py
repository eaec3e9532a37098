"""HypLoRA (Yang et al. 2025, arXiv 2410.04010): a low-rank update between points of a hyperboloid. Experimental.

``y = W x + b + (alpha / rank) f(B A g(x))``, with the maps of :mod:`cbtrain.model.adapters.hyperbolic`, computed in
fp32 or wider. The update is not linear in ``x``, so no weight can hold it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtrain.model.adapters.adapted_linear import AdaptedLinear
from cbtrain.model.adapters.dropout import KeyedDropout
from cbtrain.model.adapters.hyperbolic import code_logarithm, exponential, logarithm
from cbtrain.model.adapters.linears_adapter import LinearsAdapter
from cbtrain.model.adapters.lora import is_target
from cbtrain.model.adapters.lora_linear import initialize_pair
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.linear import Linear
from cbtrain.model.method_settings import HypLoraConfig

LEAST_K = 1e-6
"""K is softplus(k) and this much, so that it stays positive whatever k becomes."""


def softplus_inverse(value: float) -> float:
    """Return x with log(1 + exp(x)) = ``value``, above 0; large values too."""
    return value + math.log(-math.expm1(-value))


class HypLoraLinear(AdaptedLinear):
    """``k`` stands for K, and ``norm_scale`` is s. What of them is not trained is what the settings say."""

    def __init__(
        self, base: Linear, path: str, config: HypLoraConfig, dropout: KeyedDropout, device: torch.device
    ) -> None:
        super().__init__(base, path)
        self.config, self.dropout, self.scale = config, dropout, config.alpha / config.rank
        self.lora_A = nn.Parameter(torch.empty(config.rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, config.rank, device=device))
        k, s = softplus_inverse(config.curvature - LEAST_K), math.sqrt(base.in_features) if config.norm_scale else 1
        self.k = nn.Parameter(torch.tensor(float(k), device=device), requires_grad=config.learn_curvature)
        self.norm_scale = nn.Parameter(torch.tensor(float(s), device=device), requires_grad=config.norm_scale)

    def initialize(self, generator: torch.Generator) -> None:
        """Set A and B as in LoRA. K begins at the settings' curvature, s at √in."""
        initialize_pair(self.lora_A, self.lora_B, generator)

    def tensors(self) -> dict[str, nn.Parameter]:
        scalars = {"k": self.k} if self.config.learn_curvature else {}
        scalars |= {"norm_scale": self.norm_scale} if self.config.norm_scale else {}
        return {"lora_A": self.lora_A, "lora_B": self.lora_B, **scalars}

    def settings(self) -> str:
        return f"{self.config!r}"

    def adapt(self, x: Tensor, out: Tensor) -> Tensor:
        return out + self.update(self.dropout(x, self.path) if self.training else x).to(out.dtype)

    def update(self, x: Tensor) -> Tensor:
        """Return what is added for ``x [T, in]``: ``[T, out]`` in fp32, or in fp64 of parameters in fp64."""
        wide = torch.promote_types(self.lora_A.dtype, torch.float32)
        root_k = (F.softplus(self.k) + LEAST_K).sqrt()
        point = exponential(x.to(wide), root_k, self.norm_scale)
        y = F.linear(F.linear(point, self.lora_A), self.lora_B)
        back = code_logarithm if self.config.reproduce == "code" else logarithm
        return self.scale * back(y, root_k)


class HypLoraAdapter(LinearsAdapter[HypLoraLinear]):
    """HypLoRA on the linears that ``config`` names."""

    config: HypLoraConfig

    def __init__(self, decoder: Decoder, config: HypLoraConfig, device: torch.device) -> None:
        self.dropout = KeyedDropout(config.dropout, seed=0)
        modules = {
            path: HypLoraLinear(base, path, config, self.dropout, device)
            for path, base in decoder.linears.items()
            if is_target(path, config.targets, config.layers)
        }
        super().__init__(decoder, config, modules)

    def describe(self) -> str:
        return f"HypLoRA, rank {self.config.rank}, alpha {self.config.alpha:g}, curvature {self.config.curvature:g}"
