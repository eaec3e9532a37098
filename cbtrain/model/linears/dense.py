"""A weight held as it is: fp32 or bf16."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtrain.model.linears.linear import Linear


class DenseLinear(Linear):
    """The weight is a parameter; it is the one format whose weights can be trained."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def load_weight(self, weight: Tensor, compute: torch.dtype) -> None:
        self.weight = nn.Parameter(weight.to(compute, copy=True), requires_grad=False)

    def dequantized(self) -> Tensor:
        return self.weight.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    @property
    def weight_bytes(self) -> int:
        return self.weight.numel() * self.weight.element_size()
