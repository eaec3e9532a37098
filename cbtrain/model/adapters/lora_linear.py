"""Linears with a low-rank side path: LoRA, rsLoRA and DoRA."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtrain.model.adapters.adapted_linear import AdaptedLinear
from cbtrain.model.adapters.dropout import KeyedDropout
from cbtrain.model.linears.linear import Linear

TINY = 1e-12
"""The least norm of a row, for rows of zeros."""


class LoraLinear(AdaptedLinear):
    """``y = W x + b + scale · B A dropout(x)`` with frozen ``W`` (Hu et al. 2021, arXiv 2106.09685).

    ``scale`` is alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023, arXiv 2312.03732).
    """

    def __init__(
        self, base: Linear, path: str, rank: int, scale: float, dropout: KeyedDropout, device: torch.device
    ) -> None:
        super().__init__(base, path)
        self.rank, self.scale, self.dropout = rank, scale, dropout
        # fp32 whatever the base is: an optimizer step on bf16 adapters rounds most small updates away.
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))

    def initialize(self, generator: torch.Generator) -> None:
        initialize_pair(self.lora_A, self.lora_B, generator)

    def adapt(self, x: Tensor, out: Tensor) -> Tensor:
        return out + self._update(self._dropped(x)).to(out.dtype)

    def settings(self) -> str:
        return f"scale {self.scale!r}"

    def effective_weight(self, weight: Tensor) -> Tensor:
        """Return ``weight`` plus the update, fp32 ``[out, in]``."""
        return weight.float() + self.scale * (self.lora_B @ self.lora_A).detach()

    def tensors(self) -> dict[str, nn.Parameter]:
        return {"lora_A.weight": self.lora_A, "lora_B.weight": self.lora_B}

    def _dropped(self, x: Tensor) -> Tensor:
        return self.dropout(x, self.path) if self.training else x

    def _update(self, x: Tensor) -> Tensor:
        # In the dtype of the activations: copies of them in fp32 would be the largest thing a layer keeps.
        return self.scale * F.linear(F.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype))


@torch.no_grad()
def initialize_pair(a: Tensor, b: Tensor, generator: torch.Generator) -> None:
    """Set ``a [rank, in]`` Kaiming-uniform, as in the paper's code, and ``b [out, rank]`` zero."""
    bound = math.sqrt(1 / a.shape[1])  # kaiming_uniform with a = sqrt(5)
    a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
    b.zero_()


class DoraLinear(LoraLinear):
    """``y = m · (W + scale · B A) x / ‖W + scale · B A‖ + b`` with the norm of each row (Liu et al. 2024, DoRA, arXiv
    2402.09353, equation 5); no gradient flows through the norm (section 4.3), as in ``peft``.

    The norm is expanded, so that ``B A`` is never computed:
    ``‖w + s b A‖² = ‖w‖² + 2 s b·(A w) + s² b (A Aᵀ) bᵀ`` for each row ``w`` of W and ``b`` of B. The first term is
    computed once.
    """

    def __init__(
        self, base: Linear, path: str, rank: int, scale: float, dropout: KeyedDropout, device: torch.device
    ) -> None:
        super().__init__(base, path, rank, scale, dropout, device)
        self.magnitude = nn.Parameter(torch.empty(base.out_features, device=device))
        self._squares: Tensor | None = None
        self._kept: tuple[tuple[int, int], Tensor] | None = None

    def initialize(self, generator: torch.Generator) -> None:
        super().initialize(generator)
        self._kept = None
        with torch.no_grad():
            self.magnitude.copy_(self._norms())

    def adapt(self, x: Tensor, out: Tensor) -> Tensor:
        dropped = self._dropped(x)
        # Dropout applies to the whole direction, W included, as in the authors' code.
        direction = out if dropped is x else self.base(dropped)
        if self.base.bias is not None:
            direction = direction - self.base.bias
        ratio = self.magnitude / self._norms()
        return out + ((ratio - 1) * direction + ratio * self._update(dropped)).to(out.dtype)

    def effective_weight(self, weight: Tensor) -> Tensor:
        direction = super().effective_weight(weight)
        return self.magnitude.detach()[:, None] * direction / direction.norm(dim=1, keepdim=True).clamp_min(TINY)

    def tensors(self) -> dict[str, nn.Parameter]:
        return {**super().tensors(), "lora_magnitude_vector": self.magnitude}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DoraLinear:
        self._squares = self._kept = None  # of other places or dtypes
        super()._apply(fn, recurse)
        return self

    def train(self, mode: bool = True) -> DoraLinear:
        self._kept = None
        super().train(mode)
        return self

    @torch.inference_mode(False)
    @torch.no_grad()
    def _norms(self) -> Tensor:
        """Return the norms, fp32 ``[out]``; cached in evaluation mode, since generation needs them for every token."""
        version = (self.lora_A._version, self.lora_B._version)
        if not self.training and self._kept is not None and self._kept[0] == version:
            return self._kept[1]
        weight, a, b, scale = self.base.dequantized(), self.lora_A, self.lora_B, self.scale
        crossed = (b * (weight @ a.T)).sum(1)
        added = ((b @ (a @ a.T)) * b).sum(1)
        if self._squares is None:
            self._squares = torch.linalg.vector_norm(weight, dim=1).square()
        norms = (self._squares + 2 * scale * crossed + scale**2 * added).clamp_min(TINY**2).sqrt()
        if not self.training:
            self._kept = (version, norms)
        return norms
