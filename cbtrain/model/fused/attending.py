"""Attention inside a function with a backward pass by hand: autograd runs it, and may be kept from keeping its inputs.

Every back-end brings its own backward pass. So attention is a small graph of its own. Where queries, keys and values
are to be computed again, the graph keeps a note of where they lay in place of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks

Place = tuple[int, torch.Size, tuple[int, ...], int]
"""Number of a dropped tensor, and size, stride and offset of a view into its memory."""


class Attending:
    """One call of ``attend`` on ``inputs`` (query, key, value), which are views into ``sources``. ``out`` is its
    result, outside the graph. Unless ``keep``, the graph does not hold what lies in the memory of ``sources``."""

    def __init__(
        self,
        attend: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        sources: Sequence[Tensor],
        *,
        keep: bool,
    ) -> None:
        self._dropped = _Dropped(sources)
        anchor = torch.empty(0, device=inputs[0].device, dtype=inputs[0].dtype, requires_grad=True)
        hooks = nullcontext() if keep else saved_tensors_hooks(self._dropped.pack, self._dropped.unpack)
        with torch.enable_grad(), hooks:
            started = _Start.apply(anchor, *inputs)
            self._edges: list[GradientEdge] = [get_gradient_edge(tensor) for tensor in started]
            self._result: Tensor | None = attend(*started)
        self.out = self._result.detach()

    def backward(self, grad: Tensor, sources: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Return the gradients of query, key and value for the gradient ``grad`` of the result, once. ``sources`` are
        those of the constructor, computed again, if they were not kept."""
        result, self._result = self._result, None
        assert result is not None
        self._dropped.again = sources
        try:
            return torch.autograd.grad(result, self._edges, grad)
        finally:
            self._dropped.again = ()


class _Dropped:
    """The tensors that a graph does not keep. The graph holds this object, which must not hold the graph: nothing would
    ever free the two."""

    def __init__(self, sources: Sequence[Tensor]) -> None:
        self.numbers = {source.untyped_storage()._cdata: number for number, source in enumerate(sources)}
        self.again: Sequence[Tensor] = ()

    def pack(self, tensor: Tensor) -> Tensor | Place:
        number = self.numbers.get(tensor.untyped_storage()._cdata)
        if number is None:
            return tensor.detach()  # a result would hold the graph that holds it
        return number, tensor.size(), tensor.stride(), int(tensor.storage_offset())

    def unpack(self, kept: Tensor | Place) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        number, size, stride, offset = kept
        return self.again[number].as_strided(size, stride, offset)


class _Start(torch.autograd.Function):
    """Where the graph begins. Gradients are read from its edges, so its inputs need not be kept as leaves."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        raise AssertionError("gradients are read before")
