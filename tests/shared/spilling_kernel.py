"""Kernels that show what :mod:`compiling` finds."""

import triton
import triton.language as tl

from cbtrain.kernels.runtime import Build


@triton.jit
def _centre(X, OUT, BLOCK: tl.constexpr):
    """Hold 512 numbers a thread: more than there are registers."""
    at = tl.arange(0, BLOCK)
    x = tl.load(X + at)
    tl.store(OUT + at, x - tl.sum(x, 0) / BLOCK)


@triton.jit
def _transpose(X, OUT, BLOCK: tl.constexpr):
    """Change the order of a tile that is larger than shared memory."""
    rows, columns = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    tl.store(OUT + rows * BLOCK + columns, tl.trans(tl.load(X + rows * BLOCK + columns)))


@triton.jit
def _square_and_one(X, OUT, BLOCK: tl.constexpr):
    """Round once where products and sums are fused, else twice."""
    at = tl.arange(0, BLOCK)
    x = tl.load(X + at)
    tl.store(OUT + at, x * x + 1.0)


def builds():
    signature = {"X": "*fp32", "OUT": "*fp32", "BLOCK": "constexpr"}
    return [
        Build("spilling", _centre, signature, {"BLOCK": 16_384}, (0, 1), warps=1),
        Build("spilling", _transpose, signature, {"BLOCK": 256}, (0, 1), warps=8),
        *(Build("fused", _square_and_one, signature, {"BLOCK": 256}, (0, 1), 1, fusion=on) for on in (True, False)),
    ]
