"""What each Triton kernel computes in a decoder, with the same in plain PyTorch: for timing, tests and the table of
bytes in ``docs/kernels.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.training.rows import GEOMETRIES
from cbtrain.kernels import cross_entropy, nf4, rms_norm, rope, swiglu
from cbtrain.kernels.runtime import Traffic
from cbtrain.model.head import losses_and_slopes, rows_at_once
from cbtrain.model.linears.nf4 import as_kernels_take_it, dequantize, quantize

Tensors = tuple[Any, ...]
Make = Callable[[torch.device, torch.dtype], Tensors]
Passes = dict[str, Callable[..., Tensors]]
TOKENS = 16_384
EPS = 1e-5


@dataclass(frozen=True)
class Case:
    """One pass of ``kernel`` at the widths of ``model``.

    ``make(device, dtype)`` returns random inputs for ``units`` of work (each a ``unit``; ``traffic`` is that of one).
    ``ours``, ``plain`` and ``reference`` take them, may overwrite them, and return what they have computed.
    ``plain`` is what the decoder computes without the kernel; ``reference``, if it is another, has the same results.
    """

    kernel: str
    what: str
    model: str
    units: int
    unit: str
    traffic: Traffic
    make: Make
    ours: Callable[..., Tensors]
    plain: Callable[..., Tensors]
    reference: Callable[..., Tensors] | None = None


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model and of its input: ``tokens`` tokens, whose numbers have ``itemsize`` bytes."""

    model: str
    tokens: int = TOKENS
    itemsize: int = 2

    def __getattr__(self, name: str) -> int:
        value: int = GEOMETRIES[self.model][name]
        return value


def cases(sizes: Sizes) -> list[Case]:
    """Return a case for each pass of each kernel."""
    return [*_norms(sizes), *_ropes(sizes), *_swiglus(sizes), *_cross_entropies(sizes), _unpacking(sizes)]


def _norms(sizes: Sizes) -> list[Case]:
    n, tokens = sizes.hidden_size, sizes.tokens

    def make(device: torch.device, dtype: torch.dtype) -> Tensors:
        x, added, grad, into = _random(device, dtype, *[(tokens, n)] * 4)
        return x, added, grad, into, 1 + _random(device, dtype, (n,))[0] / 4

    def passes(norm: Callable[..., Any], norm_backward: Callable[..., None]) -> Passes:
        def sum_and_norm(x: Tensor, added: Tensor, grad: Tensor, into: Tensor, weight: Tensor) -> Tensors:
            return *norm(x, weight, EPS, add=added), x

        def backward(x: Tensor, added: Tensor, grad: Tensor, into: Tensor, weight: Tensor) -> Tensors:
            wide = torch.promote_types(x.dtype, torch.float32)
            inverse = torch.ones(len(x), 1, dtype=wide, device=x.device)  # near what it is for random numbers
            norm_backward(grad, x, weight, inverse, into, add=into)
            return (into,)

        return {
            "norm": lambda x, added, grad, into, weight: norm(x, weight, EPS),
            "sum and norm": sum_and_norm,
            "backward": backward,
        }

    ours = passes(rms_norm.rms_norm, rms_norm.rms_norm_backward)
    plain = passes(rms_norm.rms_norm_reference, rms_norm.rms_norm_backward_reference)
    return _by_pass("rms_norm", sizes, rms_norm.traffic(n, sizes.itemsize), make, ours, plain)


def _ropes(sizes: Sizes) -> list[Case]:
    heads, kv_heads, tokens = sizes.num_attention_heads, sizes.num_key_value_heads, sizes.tokens
    head_dim = sizes.hidden_size // heads

    def make(device: torch.device, dtype: torch.dtype) -> Tensors:
        # As in a layer: queries, keys and values are parts of one product, and so are their gradients.
        together = _random(device, dtype, *[(tokens, heads + 2 * kv_heads, head_dim)] * 2)
        (q, k, _), (to_q, to_k, _) = (x.split([heads, kv_heads, kv_heads], 1) for x in together)
        angles = torch.rand(tokens, head_dim // 2, device=device)
        return q, k, to_q, to_k, angles.cos().to(dtype), angles.sin().to(dtype)

    def passes(rotate: Callable[..., None]) -> Passes:
        def forward(q: Tensor, k: Tensor, to_q: Tensor, to_k: Tensor, cos: Tensor, sin: Tensor) -> Tensors:
            rotate((q, k), cos, sin)
            return q, k

        def backward(q: Tensor, k: Tensor, to_q: Tensor, to_k: Tensor, cos: Tensor, sin: Tensor) -> Tensors:
            rotate((q, k), cos, sin, back=True, out=(to_q, to_k))
            return to_q, to_k

        return {"forward": forward, "backward": backward}

    ours, plain = passes(rope.rope), passes(rope.rope_reference)
    return _by_pass("rope", sizes, rope.traffic(heads, kv_heads, head_dim, sizes.itemsize), make, ours, plain)


def _swiglus(sizes: Sizes) -> list[Case]:
    n, tokens = sizes.intermediate_size, sizes.tokens

    def make(device: torch.device, dtype: torch.dtype) -> Tensors:
        gate_up, grad = _random(device, dtype, (tokens, 2 * n), (tokens, n))
        return *gate_up.chunk(2, -1), grad

    def passes(activate: Callable[..., Tensor], gradient: Callable[..., None]) -> Passes:
        def backward(gate: Tensor, up: Tensor, grad: Tensor) -> Tensors:
            gradient(grad, gate, up)
            return gate, up

        return {"forward": lambda gate, up, grad: (activate(gate, up),), "backward": backward}

    ours = passes(swiglu.swiglu, swiglu.swiglu_backward)
    plain = passes(swiglu.swiglu_reference, swiglu.swiglu_backward_reference)
    return _by_pass("swiglu", sizes, swiglu.traffic(n, sizes.itemsize), make, ours, plain)


def _cross_entropies(sizes: Sizes) -> list[Case]:
    """Logits that are overwritten, and fp32 ones with the gradient beside them, as on CUDA. PyTorch has logits in the
    dtype of the gradient in both."""
    vocabulary = sizes.vocab_size
    rows = min(sizes.tokens, rows_at_once(vocabulary, "cuda"))

    def make(device: torch.device, dtype: torch.dtype) -> Tensors:
        logits = (3 * torch.randn(rows, vocabulary, device=device)).to(dtype)
        return logits, logits.float(), torch.randint(vocabulary, (rows,), device=device)

    def over(logits: Tensor, wide: Tensor, labels: Tensor) -> Tensors:
        return cross_entropy.cross_entropy(logits, labels, logits), logits

    def beside(logits: Tensor, wide: Tensor, labels: Tensor) -> Tensors:
        slopes = torch.empty_like(logits)
        return cross_entropy.cross_entropy(wide, labels, slopes), slopes

    def plain(logits: Tensor, wide: Tensor, labels: Tensor) -> Tensors:
        losses, slopes, total = losses_and_slopes(logits, labels)
        return losses, slopes.to(logits.dtype), total

    def reference(logits: Tensor, wide: Tensor, labels: Tensor) -> Tensors:
        return cross_entropy.cross_entropy_reference(logits, labels, logits), logits

    found = []
    for what, itemsize, ours in (("over the logits", sizes.itemsize, over), ("beside fp32 logits", 4, beside)):
        traffic = cross_entropy.traffic(vocabulary, itemsize, sizes.itemsize)["losses and gradients"]
        unit = "supervised token"
        found.append(Case("cross_entropy", what, sizes.model, rows, unit, traffic, make, ours, plain, reference))
    return found


def _unpacking(sizes: Sizes) -> Case:
    shape = sizes.intermediate_size, sizes.hidden_size

    def make(device: torch.device, dtype: torch.dtype) -> Tensors:
        packed, state = quantize(_random(device, torch.float32, shape)[0], double_quantization=True)
        state.dtype = dtype
        return packed, state

    def ours(packed: Tensor, state: Any) -> Tensors:
        return (nf4.dequantize(as_kernels_take_it(packed, state), state.dtype),)

    def plain(packed: Tensor, state: Any) -> Tensors:
        return (dequantize(packed, state),)

    what, weights = "double quantization", shape[0] * shape[1]
    return Case("nf4", what, sizes.model, weights, "weight", nf4.traffic(sizes.itemsize)[what], make, ours, plain)


def _by_pass(
    kernel: str, sizes: Sizes, traffic: Mapping[str, Traffic], make: Make, ours: Passes, plain: Passes
) -> list[Case]:
    """Return a case for each pass of a kernel over all tokens."""
    return [
        Case(kernel, what, sizes.model, sizes.tokens, "token", traffic[what], make, ours[what], plain[what])
        for what in ours
    ]


def _random(device: torch.device, dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, device=device, dtype=dtype) for shape in shapes]
