"""The side paths of adapters beside one joined product, with their gradients (Hu et al. 2021, arXiv 2106.09685).

For ``y = x Wᵀ + s x Aᵀ Bᵀ``: with ``u = x Aᵀ`` and ``w = dy (s B)``, ``dB = s dyᵀ u``, ``dA = wᵀ x`` and
``dx += w A``. The A of linears that share an input are one matrix. ``u`` is computed again in the backward pass: it is
a small product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pair:
    """The side path ``scale · B A`` of one linear: ``columns`` are its place in the joined output, ``a [rank, in]`` and
    ``b [columns, rank]`` its parameters."""

    columns: slice
    a: Tensor
    b: Tensor
    scale: float


class SidePaths:
    """The side paths ``pairs`` beside one joined product, computed in ``dtype``."""

    def __init__(self, pairs: Sequence[Pair], dtype: torch.dtype) -> None:
        self.pairs = pairs
        ends = accumulate((len(pair.a) for pair in pairs), initial=0)
        self.ranks = [slice(begin, end) for begin, end in pairwise(ends)]
        self.a = torch.cat([pair.a.detach().to(dtype) for pair in pairs])
        self.bs = [(pair.scale * pair.b.detach()).to(dtype) for pair in pairs]
        self.grad_a: Tensor | None = None
        self.grad_bs: list[Tensor] = []

    def folded(self, columns: slice, weight: Tensor) -> Tensor:
        """Return ``weight``, which makes ``columns`` of the output, plus the side paths of these: a copy."""
        weight = weight.clone()
        for pair, rank, b in zip(self.pairs, self.ranks, self.bs, strict=True):
            if columns.start <= pair.columns.start < columns.stop:
                begin = pair.columns.start - columns.start
                weight[begin : begin + len(b)].addmm_(b, self.a[rank])
        return weight

    def forward(self, x: Tensor, out: Tensor) -> None:
        """Add the side paths of ``x [T, in]`` to ``out [T, out]``."""
        u = x @ self.a.t()
        for pair, rank, b in zip(self.pairs, self.ranks, self.bs, strict=True):
            out[:, pair.columns].addmm_(u[:, rank], b.t())

    def backward(self, x: Tensor, grad: Tensor, grad_x: Tensor | None) -> None:
        """Add to the gradients of A and B those of some rows, ``x [T, in]`` with ``grad [T, out]`` of the output, and
        to ``grad_x [T, in]`` that of ``x``, if it is wanted."""
        grad_a, grad_bs = self._sums()
        u = x @ self.a.t()
        w = torch.empty_like(u)
        for pair, rank, b, grad_b in zip(self.pairs, self.ranks, self.bs, grad_bs, strict=True):
            torch.mm(grad[:, pair.columns], b, out=w[:, rank])
            _add_product(grad_b, grad[:, pair.columns].t(), u[:, rank])
        _add_product(grad_a, w.t(), x)
        if grad_x is not None:
            grad_x.addmm_(w, self.a)

    def gradients(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the gradients of A and B of each pair, in the dtypes of these, and forget them."""
        grad_a, grad_bs = self._sums()
        for pair, rank, grad_b in zip(self.pairs, self.ranks, grad_bs, strict=True):
            yield grad_a[rank].to(pair.a.dtype), grad_b.mul_(pair.scale).to(pair.b.dtype)
        self.grad_a, self.grad_bs = None, []

    def _sums(self) -> tuple[Tensor, list[Tensor]]:
        if self.grad_a is None:
            wide = torch.promote_types(self.a.dtype, torch.float32)
            self.grad_a = torch.zeros_like(self.a, dtype=wide)
            self.grad_bs = [torch.zeros_like(b, dtype=wide) for b in self.bs]
        return self.grad_a, self.grad_bs


def _add_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    # Sums over many stretches of rows are kept in fp32 at least.
    if into.dtype == left.dtype:
        into.addmm_(left, right)
    else:
        into.add_(left @ right)
