"""RMSNorm of rows (Zhang and Sennrich 2019, arXiv 1910.07467), with the sum before it, and its gradient.

The norm's weight is frozen: there is no gradient for it. Values are converted to fp32 right after each load (Triton's
interpreter treats bf16 bits as integers) and rounded where the Hugging Face models round: the sum, the row times
1/rms, and that times the weight. Rows are ``[T, n]``, or ``[T, heads, n]`` with any strides but the last, which is 1.

The references are what the decoder computes where the kernels do not serve.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cbtrain.kernels.runtime import Build, Traffic, build_of, on_device_of, tl, triton

NUMBERS = 2048
"""Numbers of a program at least: short rows are taken several at a time."""


def rms_norm_reference(
    x: Tensor, weight: Tensor, eps: float, *, add: Tensor | None = None, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the norm of ``x […, n]`` in its dtype (as ``out``, if that is given), and 1/rms of its rows ``[…, 1]`` in
    fp32 or wider. With ``add`` ``[…, n]``, ``x`` is overwritten with ``add + x`` first."""
    if add is not None:
        x.add_(add)
    inverse = inverse_rms_reference(x, eps)
    normed = x * inverse
    normed = normed.mul_(weight) if normed.dtype == x.dtype else weight * normed.to(x.dtype)
    return normed if out is None else out.copy_(normed), inverse


def inverse_rms_reference(x: Tensor, eps: float) -> Tensor:
    """Return 1 / √(mean(x²) + eps) over the last axis of ``x […, n]``, ``[…, 1]`` in fp32 or wider."""
    # Not by the length of x, whose square root is rounded: where a gradient lies along x, little else is left of it.
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()


def rms_norm_backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor, out: Tensor, *, add: Tensor | None = None
) -> None:
    """Write to ``out`` the gradient of ``x`` for the gradient ``grad`` of its norm, plus ``add`` if there is one;
    ``inverse`` is 1/rms. ``grad`` may be overwritten; ``out`` may be ``grad`` or ``add``.

    d/dx of x·r with r = 1/rms is the gradient without its component along x: r (g − x r² mean(g x)).
    """
    g, wide = grad.to(inverse.dtype).mul_(weight), x.to(inverse.dtype)
    along = (g * wide).mean(-1, keepdim=True).mul_(inverse.square())
    g.addcmul_(wide, along, value=-1).mul_(inverse)
    if add is None:
        out.copy_(g)
    else:
        torch.add(add, g, out=out)


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, *, add: Tensor | None = None, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the same as :func:`rms_norm_reference`, in one launch; ``add`` is ``[T, n]``."""
    out = torch.empty_like(x) if out is None else out
    return out, _launch(x, weight, eps, add, out)


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """Return the same as :func:`inverse_rms_reference`, in one launch."""
    return _launch(x, None, eps, None, None)


def _launch(x: Tensor, weight: Tensor | None, eps: float, add: Tensor | None, out: Tensor | None) -> Tensor:
    n, inner = x.shape[-1], _inner(x)
    inverse = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)
    rows, at_once, block, warps = _shape(inverse.numel(), n)
    with on_device_of(x):
        _forward[(-(-rows // at_once),)](
            x,
            x if add is None else add,
            x if weight is None else weight,
            x if out is None else out,
            inverse,
            rows,
            inner,
            n,
            eps,
            *_strides(x),
            0 if add is None else add.stride(0),
            *_strides(x if out is None else out),
            ADDS=add is not None,
            NORMS=out is not None,
            ROWS=at_once,
            BLOCK=block,
            num_warps=warps,
        )
    return inverse


def rms_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor, out: Tensor, *, add: Tensor | None = None
) -> None:
    """Do the same as :func:`rms_norm_backward_reference`, in one launch; ``grad`` stays as it is, ``add`` is
    ``[T, n]``."""
    n, inner = x.shape[-1], _inner(x)
    rows, at_once, block, warps = _shape(inverse.numel(), n)
    with on_device_of(x):
        _backward[(-(-rows // at_once),)](
            grad,
            x,
            weight,
            inverse,
            out if add is None else add,
            out,
            rows,
            inner,
            n,
            *_strides(grad),
            *_strides(x),
            0 if add is None else add.stride(0),
            *_strides(out),
            ADDS=add is not None,
            ROWS=at_once,
            BLOCK=block,
            num_warps=warps,
        )


class FrozenNorm(torch.autograd.Function):
    """The norm of ``x [T, n]``, differentiable in ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, inverse = rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return normed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        rms_norm_backward(grad.contiguous(), x, weight, inverse, grad_x)
        return grad_x, None, None


def _inner(x: Tensor) -> int:
    return x.shape[1] if x.dim() == 3 else 1


def _strides(x: Tensor) -> tuple[int, int]:
    """Return the strides of tokens and heads. Raises ValueError if the numbers of a row do not lie side by side."""
    if x.dim() not in (2, 3) or x.stride(-1) != 1:
        raise ValueError(f"rows of shape {tuple(x.shape)} with strides {x.stride()} cannot be normed")
    return x.stride(0), x.stride(1) if x.dim() == 3 else 0


def _shape(rows: int, n: int) -> tuple[int, int, int, int]:
    """Return the number of rows, rows of a program, numbers of a padded row, and warps of a program."""
    block = triton.next_power_of_2(n)
    at_once = max(1, NUMBERS // block)
    return rows, at_once, block, min(16, max(4, at_once * block // 512))


if triton is not None:
    # A kernel takes each tensor as a pointer, and its sizes as scalars: a Triton signature cannot group them.

    # More than seven parameters: three inputs, two outputs, sizes, strides, and what is computed.
    @triton.jit(do_not_specialize=["rows"])
    def _forward(  # type: ignore[no-untyped-def]
        X,
        ADD,
        W,
        OUT,
        INVERSE,
        rows,
        inner,
        n,
        eps,
        x_token,
        x_head,
        add_token,
        out_token,
        out_head,
        ADDS: tl.constexpr,
        NORMS: tl.constexpr,
        ROWS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
        columns = tl.arange(0, BLOCK)[None, :]
        mask = (row < rows) & (columns < n)
        token = (row // inner).to(tl.int64)
        head = (row % inner).to(tl.int64)
        at = token * x_token + head * x_head + columns
        x = tl.load(X + at, mask, 0.0).to(tl.float32)
        if ADDS:
            x += tl.load(ADD + token * add_token + columns, mask, 0.0).to(tl.float32)
            rounded = x.to(X.dtype.element_ty)
            tl.store(X + at, rounded, mask)
            x = rounded.to(tl.float32)
        inverse = tl.rsqrt(tl.sum(x * x, 1, keep_dims=True) / n + eps)
        tl.store(INVERSE + row, inverse, row < rows)
        if NORMS:
            normed = (x * inverse).to(OUT.dtype.element_ty).to(tl.float32)
            weight = tl.load(W + columns, columns < n, 0.0).to(tl.float32)
            to = token * out_token + head * out_head + columns
            tl.store(OUT + to, (normed * weight).to(OUT.dtype.element_ty), mask)

    # More than seven parameters: five inputs, one output, sizes, strides, and the block.
    @triton.jit(do_not_specialize=["rows"])
    def _backward(  # type: ignore[no-untyped-def]
        GRAD,
        X,
        W,
        INVERSE,
        ADD,
        OUT,
        rows,
        inner,
        n,
        grad_token,
        grad_head,
        x_token,
        x_head,
        add_token,
        out_token,
        out_head,
        ADDS: tl.constexpr,
        ROWS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
        columns = tl.arange(0, BLOCK)[None, :]
        mask = (row < rows) & (columns < n)
        token = (row // inner).to(tl.int64)
        head = (row % inner).to(tl.int64)
        grad = tl.load(GRAD + token * grad_token + head * grad_head + columns, mask, 0.0).to(tl.float32)
        x = tl.load(X + token * x_token + head * x_head + columns, mask, 0.0).to(tl.float32)
        inverse = tl.load(INVERSE + row, row < rows, 0.0)
        grad *= tl.load(W + columns, columns < n, 0.0).to(tl.float32)
        along = tl.sum(grad * x, 1, keep_dims=True) / n * (inverse * inverse)
        grad = (grad - x * along) * inverse
        if ADDS:
            grad += tl.load(ADD + token * add_token + columns, mask, 0.0).to(tl.float32)
        tl.store(OUT + token * out_token + head * out_head + columns, grad.to(OUT.dtype.element_ty), mask)


def traffic(n: int, itemsize: int) -> dict[str, Traffic]:
    """Return for each pass the bytes for one row of ``n`` numbers of ``itemsize`` bytes. The gradient is added to one
    that is there; the sum is that of the layers without gradients, which PyTorch computes in a pass of its own."""
    row, inverse = n * itemsize, 4
    # In PyTorch: the cast to fp32, squares, their mean, times 1/rms, the cast back, times the weight; and of the
    # gradient casts, weight, product with x, its mean, difference, scale and sum.
    narrow = itemsize < 4
    norm = n * (24 + 5 * itemsize if narrow else 28)
    backward = n * (44 + (2 * (itemsize + 4) if narrow else 0) + 2 * itemsize + 4)
    return {
        "norm": Traffic(2 * row + inverse, 2 * row, norm),
        "sum and norm": Traffic(4 * row + inverse, 4 * row, norm + 3 * row),
        "backward": Traffic(4 * row + inverse, 4 * row, backward),
    }


def builds() -> list[Build]:
    """Return every configuration that is launched for the widths of the models that the documentation names."""
    # The hidden sizes of all (4096, 3584) are taken in blocks of one size; heads are normed in Qwen 3.
    widths = [(4096, True), (128, False)]
    return [build for n, alone in widths for kind in ("fp32", "bf16") for build in _builds(n, kind, alone=alone)]


def _builds(n: int, kind: str, *, alone: bool) -> list[Build]:
    """Return the builds for rows of ``n`` numbers, one a token if ``alone``: Triton compiles the number 1 as such. The
    number of heads may be a multiple of 16 (queries) or not (keys)."""
    _, at_once, block, warps = _shape(1, n)
    common = {"ROWS": at_once, "BLOCK": block} | ({"inner": 1} if alone else {})
    sizes = {"rows": "i32", "inner": "i32", "n": "i32"}
    forward = dict.fromkeys(("X", "ADD", "W", "OUT"), f"*{kind}") | {"INVERSE": "*fp32"} | sizes | {"eps": "fp32"}
    forward |= dict.fromkeys(("x_token", "x_head", "add_token", "out_token", "out_head"), "i32")
    backward = dict.fromkeys(("GRAD", "X", "W"), f"*{kind}") | {"INVERSE": "*fp32"}
    backward |= dict.fromkeys(("ADD", "OUT"), f"*{kind}") | sizes
    strides = [f"{of}_{axis}" for of in ("grad", "x", "out") for axis in ("token", "head")]
    backward |= dict.fromkeys([*strides[:4], "add_token", *strides[4:]], "i32")
    flags: list[tuple[Any, dict[str, str], dict[str, bool]]] = [
        (_forward, forward, {"ADDS": False, "NORMS": True}),
        (_forward, forward, {"ADDS": alone, "NORMS": alone}),
        (_backward, backward, {"ADDS": False}),
    ]
    if alone:
        flags.append((_backward, backward, {"ADDS": True}))
    return [
        build_of("rms_norm", function, signature, given | common, unaligned, warps)
        for function, signature, given in flags
        for unaligned in ([("rows", "eps")] if alone else [("rows", "eps"), ("rows", "eps", "inner")])
    ]
