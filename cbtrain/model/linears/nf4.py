"""A weight held in four bits: NF4 with double quantization (Dettmers et al. 2023, QLoRA, arXiv 2305.14314, section 3).

Each block of 64 weights shares a scale and each weight is one of sixteen values; with double quantization the scales
are eight bits themselves. bitsandbytes packs and unpacks, on CUDA and on CPUs, so that the bytes are the field's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtrain.errors import UserError
from cbtrain.kernels.nf4 import Packed
from cbtrain.kernels.nf4 import dequantize as unpack
from cbtrain.model.linears.linear import Linear

BLOCK = 64
NESTED_BLOCK = 256
STRETCH = 4096 * BLOCK


class Nf4Linear(Linear):
    """Dequantizes its weight to ``compute`` in every forward and backward pass and keeps four bits between them.
    ``kernel`` asks for the Triton kernel of :mod:`cbtrain.kernels.nf4`, which gives the same bits."""

    kernel = False

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        double_quantization: bool = True,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.double_quantization = double_quantization
        self.bias = nn.Parameter(torch.zeros(out_features), requires_grad=False) if bias else None
        self.packed: Tensor | None = None
        self.state: Any = None

    def load_weight(self, weight: Tensor, compute: torch.dtype) -> None:
        self.packed, self.state = quantize(weight, double_quantization=self.double_quantization)
        self.state.dtype = compute  # of what comes out

    def matrix(self) -> Tensor:
        if self.kernel and self.packed is not None:
            return unpack(as_kernels_take_it(self.packed, self.state), self.state.dtype)
        return dequantize(self.packed, self.state)

    def dequantized(self) -> Tensor:
        return self.matrix().float()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _FrozenMatmul.apply(x, self)
        return out

    @property
    def weight_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors())

    def _tensors(self) -> list[Tensor]:
        state, tensors = self.state, [self.packed, self.state.absmax]
        if self.double_quantization:
            tensors += [state.state2.absmax, state.offset]
        return tensors

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Nf4Linear:
        # Moves follow the module; the bits and their scales keep their dtypes whatever the rest is cast to.
        super()._apply(fn, recurse)
        if self.packed is not None:
            self.packed = fn(self.packed)
            self.state.to(self.packed.device)
        return self


class _FrozenMatmul(torch.autograd.Function):
    """``x W^T + bias`` that keeps nothing for the backward pass but the way to the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: Nf4Linear) -> Tensor:
        ctx.linear = linear
        return F.linear(x, linear.matrix(), linear.bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.linear.matrix(), None


def quantize(weight: Tensor, *, double_quantization: bool) -> tuple[Tensor, Any]:
    """Pack ``weight`` (fp32, bf16 or fp16) on its device; return uint8 ``[n / 2, 1]`` and the state that unpacks it.

    Raises UserError if bitsandbytes is not installed.
    """
    library, flat = require_bitsandbytes(), weight.contiguous().view(-1)
    # On CPUs bitsandbytes takes some fifty times a weight's memory while it works: a stretch at a time bounds that.
    stretches = flat.split(STRETCH if flat.device.type == "cpu" else flat.numel())
    parts = [
        library.quantize_4bit(stretch, blocksize=BLOCK, compress_statistics=False, quant_type="nf4")
        for stretch in stretches
    ]
    packed = torch.cat([part for part, _ in parts])
    state = parts[0][1]
    state.shape, state.absmax = weight.shape, torch.cat([part.absmax for _, part in parts])
    if double_quantization:
        state.offset = state.absmax.mean()
        state.absmax, state.state2 = library.quantize_blockwise(state.absmax - state.offset, blocksize=NESTED_BLOCK)
        state.nested = True
    return packed, state


def dequantize(packed: Any, state: Any) -> Tensor:
    """Return the tensor that :func:`quantize` packed, in ``state.dtype`` and its old shape."""
    tensor: Tensor = require_bitsandbytes().dequantize_4bit(packed, state)
    return tensor


def as_kernels_take_it(packed: Tensor, state: Any) -> Packed:
    """Return what :func:`quantize` has made, for the kernel."""
    nested = (state.state2.code, state.state2.absmax, state.offset) if state.nested else None
    return Packed(packed, state.shape, state.code, state.absmax, nested)


def require_bitsandbytes() -> Any:
    """Return ``bitsandbytes.functional``. Raises UserError if bitsandbytes is not installed."""
    # It warns that an optional kernel for CPUs, which is not used here, could not be downloaded.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes.functional
    except ImportError:
        hint = "Install it (`pip install bitsandbytes`), or set model.weights to bf16."
        raise UserError("NF4 weights need the package bitsandbytes", hint=hint) from None
    return bitsandbytes.functional
