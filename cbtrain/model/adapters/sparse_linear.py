"""A linear of which a few weights are changed: ``y = (W + D) x + b``, where D is zero but at chosen places."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtrain.model.adapters.adapted_linear import AdaptedLinear
from cbtrain.model.linears.linear import Linear


class SparseLinear(AdaptedLinear):
    """``values`` (fp32 ``[k]``) are added to the weights at ``indices`` (int32 ``[k]``, distinct; row · in_features +
    column).

    In training with fp32 they are added to a copy of the weight for one product. In bf16 the product with D is another
    one, since most small changes of a weight would be rounded away; with ``rounds`` they are, as in the program of
    SpIEL's authors. ``watch`` is called with the whole gradient of W + D ``[out, in]`` in each backward pass.
    """

    indices: Tensor

    def __init__(self, base: Linear, path: str, count: int, device: torch.device, *, rounds: bool = False) -> None:
        super().__init__(base, path)
        self.rounds = rounds
        self.watch: Callable[[Tensor], None] | None = None
        self.values = nn.Parameter(torch.zeros(count, device=device))
        indices = torch.arange(count, dtype=torch.int32, device=device)
        self.register_buffer("indices", indices, persistent=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight."""
        return self.base.out_features, self.base.in_features

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw the places, and set the values to zero."""
        seed = int(torch.randint(2**62, (), generator=generator))
        drawn = np.random.default_rng(seed).choice(self.shape[0] * self.shape[1], len(self.values), replace=False)
        self.indices.copy_(torch.from_numpy(np.sort(drawn)))
        self.values.zero_()

    def tensors(self) -> dict[str, nn.Parameter]:
        return {"values": self.values}

    def settings(self) -> str:
        places = blake2b(self.indices.cpu().numpy().tobytes(), digest_size=16).hexdigest()
        return f"{self.shape} {places} {self.rounds}"

    @torch.no_grad()
    def effective_weight(self, weight: Tensor) -> Tensor:
        return self._add_to(weight.float().clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.enabled and self._folds(x):
            out: Tensor = _Product.apply(x, self.values, self, True)
            return out
        return super().forward(x)

    def adapt(self, x: Tensor, out: Tensor) -> Tensor:
        if self.rounds:
            return F.linear(x, self.matrix(), self.base.bias)
        return out + self.update(x).to(out.dtype)

    def update(self, x: Tensor) -> Tensor:
        """Return what is added for ``x [T, in]``: ``[T, out]``."""
        if not self.training and x.shape[0] * len(self.values) <= self.shape[0] * self.shape[1]:
            # Few rows, as in generation: without a matrix of zeros.
            rows, columns = self.indices.long() // self.shape[1], self.indices.long() % self.shape[1]
            products = x[:, columns].float() * self.values
            return products.new_zeros(x.shape[0], self.shape[0]).index_add(1, rows, products)
        product: Tensor = _Product.apply(x, self.values, self, False)
        return product

    def matrix(self) -> Tensor:
        """Return W + D, rounded to the computing dtype."""
        return self._add_to(self.base.matrix().clone())

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Return D."""
        return self._add_to(torch.zeros(self.shape, dtype=dtype, device=self.values.device))

    def _add_to(self, weight: Tensor) -> Tensor:
        """Add the values, rounded to its dtype, to ``weight``, and return it."""
        weight.view(-1)[self.indices.long()] += self.values.detach().to(weight.dtype)
        return weight

    def _folds(self, x: Tensor) -> bool:
        return self.rounds or (self.training and x.dtype == self.values.dtype)


class _Product(torch.autograd.Function):
    """``x (W + D)^T + b`` if it is ``folded``, else ``x D^T``. It keeps ``x``; the matrix is made again in the backward
    pass, which makes the gradient of all weights of this linear for a moment."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, linear: SparseLinear, folded: bool) -> Tensor:
        ctx.linear, ctx.folded = linear, folded
        ctx.save_for_backward(x)
        if folded:
            return F.linear(x, linear.matrix(), linear.base.bias)
        return F.linear(x, linear.dense(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        linear: SparseLinear = ctx.linear
        (x,) = ctx.saved_tensors
        back = of_values = None
        if ctx.needs_input_grad[0]:
            back = grad @ (linear.matrix() if ctx.folded else linear.dense(grad.dtype))
        if ctx.needs_input_grad[1]:
            of_weight = grad.reshape(-1, grad.shape[-1]).t() @ x.reshape(-1, x.shape[-1])
            of_values = of_weight.view(-1)[linear.indices.long()].to(linear.values.dtype)
            if linear.watch is not None:
                linear.watch(of_weight)
        return back, of_values, None, None
