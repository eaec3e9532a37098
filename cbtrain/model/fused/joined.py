"""Linears that share their input as one matrix product: query, key and value, or gate and up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from cbtrain.model.linears.dense import DenseLinear
from cbtrain.model.linears.linear import Linear

Matrix = tuple[slice, Tensor]
"""Columns of the joined output, and the weight ``[columns, in_features]`` that makes them."""


class Joined:
    """``y [T, out] = x [T, in] Wᵀ + b`` for ``linears`` whose outputs lie side by side.

    Dense weights are moved into one tensor, of which each linear's weight is a part: no memory more, and one product
    where there were several. Weights in four bits stay apart and are unpacked for each pass.
    """

    def __init__(self, linears: Sequence[Linear]) -> None:
        self.linears = tuple(linears)
        ends = accumulate((linear.out_features for linear in linears), initial=0)
        self.columns = [slice(begin, end) for begin, end in pairwise(ends)]
        self._dense = all(type(linear) is DenseLinear for linear in linears)
        self.out_features, self.in_features = self.columns[-1].stop, linears[0].in_features

    def matrices(self) -> list[Matrix]:
        """Return what :meth:`forward` and :meth:`input_gradient` multiply with. Ask once a pass: weights in four bits
        are unpacked for it."""
        if self._dense:
            return [(slice(0, self.out_features), self._one_weight())]
        return [(columns, linear.matrix()) for columns, linear in zip(self.columns, self.linears, strict=True)]

    def join(self) -> None:
        """Move dense weights into one tensor now, not at the first pass."""
        if self._dense:
            self._one_weight()

    def forward(self, x: Tensor, matrices: Sequence[Matrix], out: Tensor) -> Tensor:
        """Write ``x Wᵀ + b`` to ``out [T, out]`` and return it."""
        for columns, weight in matrices:
            torch.mm(x, weight.t(), out=out[:, columns])
        return self._with_bias(out)

    def add(self, x: Tensor, matrices: Sequence[Matrix], to: Tensor, out: Tensor) -> Tensor:
        """Write ``to + x Wᵀ + b`` to ``out [T, out]`` and return it."""
        for columns, weight in matrices:
            torch.addmm(to[:, columns], x, weight.t(), out=out[:, columns])
        return self._with_bias(out)

    def input_gradient(self, grad: Tensor, matrices: Sequence[Matrix], out: Tensor) -> Tensor:
        """Write the gradient of ``x`` for the gradient ``grad [T, out]`` of the output to ``out [T, in]``; return
        it."""
        for number, (columns, weight) in enumerate(matrices):
            if number:
                out.addmm_(grad[:, columns], weight)
            else:
                torch.mm(grad[:, columns], weight, out=out)
        return out

    def _with_bias(self, out: Tensor) -> Tensor:
        for columns, linear in zip(self.columns, self.linears, strict=True):
            if linear.bias is not None:
                out[:, columns].add_(linear.bias)
        return out

    def _one_weight(self) -> Tensor:
        weights = [linear.matrix() for linear in self.linears]
        if len(weights) == 1:
            return weights[0]
        # Moves, casts and copies of the model take the parts apart: then they are joined anew. The joined tensor is not
        # held besides, or the old one would stay until the next pass.
        if not _side_by_side(weights):
            joined = torch.cat(weights)
            for linear, part in zip(self.linears, joined.split([len(weight) for weight in weights]), strict=True):
                linear.weight.data = part
            return joined
        return weights[0].as_strided((self.out_features, self.in_features), (self.in_features, 1))


def _side_by_side(weights: Sequence[Tensor]) -> bool:
    """Return whether ``weights`` lie in one storage, each behind the one before it."""
    first, place = weights[0], int(weights[0].storage_offset())
    for weight in weights:
        same = weight.untyped_storage()._cdata == first.untyped_storage()._cdata and weight.dtype == first.dtype
        if not same or weight.storage_offset() != place or not weight.is_contiguous():
            return False
        place += weight.numel()
    return True
