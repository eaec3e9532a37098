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

    def matrix(self) -> Tensor:
        return self.weight.detach()

    def dequantized(self) -> Tensor:
        return self.matrix().float()

    def forward(self, x: Tensor) -> Tensor:
        return few_rows(x, self.weight, self.bias) if _few(x) else F.linear(x, self.weight, self.bias)

    @property
    def weight_bytes(self) -> int:
        return self.weight.numel() * self.weight.element_size()


FEW = range(8, 65)
"""Rows for which a CPU's product with the weight on the left is the faster one (docs/log.md)."""


def _few(x: Tensor) -> bool:
    cpu = x.device.type == "cpu" and x.dtype == torch.float32
    return cpu and x.dim() == 2 and len(x) in FEW and torch.is_inference_mode_enabled()


def few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``F.linear(x, weight, bias)`` of few rows as ``(weight xᵀ)ᵀ``: MKL then shares the weight's rows among the
    threads, and each thread reads its own part only."""
    out = torch.mm(weight, x.t()).t()
    return out if bias is None else out + bias
