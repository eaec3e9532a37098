"""Linears that share an input, with the side paths of the adapters on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cbtrain.model.adapters.lora_linear import LoraLinear
from cbtrain.model.fused.joined import Joined, Matrix
from cbtrain.model.fused.low_rank import Pair, SidePaths


class Part:
    """Linears that share an input, with the side paths of the adapters on them, for one pass. ``groups`` are rows with
    what stands in the linears' places for them (None of the rows: all). ``parameters`` are those of the side paths: A
    and B of each, in order.

    If it ``folds``, in fp32, the side paths are added to a copy of the weight: ``x (W + s B A)ᵀ`` is one product,
    forward and back. In bf16 they never are: most of a small update would be rounded away.
    """

    def __init__(
        self, joined: Joined, groups: Sequence[tuple[slice | None, Sequence[Any]]], dtype: torch.dtype, *, folds: bool
    ) -> None:
        self.joined, self.parameters = joined, list[Tensor]()
        self.sides: list[tuple[slice | None, SidePaths]] = []
        for rows, modules in groups:
            pairs = [
                Pair(columns, module.lora_A, module.lora_B, module.scale)
                for columns, module in zip(joined.columns, modules, strict=True)
                if isinstance(module, LoraLinear) and module.enabled
            ]
            if pairs:
                self.sides.append((rows, SidePaths(pairs, dtype)))
                self.parameters += [parameter for pair in pairs for parameter in (pair.a, pair.b)]
        self.folds = folds and dtype != torch.bfloat16 and all(rows is None for rows, _ in self.sides)

    def matrices(self) -> list[Matrix]:
        """Return what the methods multiply with; ask once a pass."""
        matrices = self.joined.matrices()
        if not self.sides or not self.folds:
            return matrices
        ((_, sides),) = self.sides
        return [(columns, sides.folded(columns, weight)) for columns, weight in matrices]

    def forward(self, x: Tensor, some: slice, matrices: list[Matrix], out: Tensor) -> Tensor:
        """Write the output for ``x``, the rows ``some``, to ``out`` and return it."""
        return self._with_sides(x, some, self.joined.forward(x, matrices, out))

    def add(self, x: Tensor, some: slice, matrices: list[Matrix], *, to: Tensor, out: Tensor) -> Tensor:
        """Write ``to`` plus the output for ``x``, the rows ``some``, to ``out`` and return it."""
        return self._with_sides(x, some, self.joined.add(x, matrices, to, out))

    def backward(self, x: Tensor, some: slice, grad: Tensor, matrices: list[Matrix], out: Tensor | None) -> None:
        """Add to the gradients of the side paths, and write that of ``x``, the rows ``some``, to ``out`` if there is
        one."""
        if out is not None:
            self.joined.input_gradient(grad, matrices, out)
        for here, sides in self._sides_in(some):
            sides.backward(x[here], grad[here], None if self.folds or out is None else out[here])

    def gradients(self) -> Iterator[Tensor]:
        """Yield the gradients of ``parameters``."""
        for _, sides in self.sides:
            for pair in sides.gradients():
                yield from pair

    def _with_sides(self, x: Tensor, some: slice, out: Tensor) -> Tensor:
        if not self.folds:
            for here, sides in self._sides_in(some):
                sides.forward(x[here], out[here])
        return out

    def _sides_in(self, some: slice) -> Iterator[tuple[slice, SidePaths]]:
        """Yield the side paths that concern the rows ``some``, each with its share of them, counted from the first."""
        for rows, sides in self.sides:
            begin = some.start if rows is None else max(some.start, rows.start)
            end = some.stop if rows is None else min(some.stop, rows.stop)
            if begin < end:
                yield slice(begin - some.start, end - some.start), sides
