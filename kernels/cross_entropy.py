"""Cross-entropy of rows of logits and its gradient, in one launch that reads each row twice and writes it once.

A program takes one row. It first reads it with the largest logit so far and the sum of exponentials relative to that
(Milakov and Gimelshein 2018, arXiv 1805.02867), then reads it again and writes ``softmax − one-hot``, over the logits
or into a tensor of another dtype. PyTorch's operations pass over such rows about eight times.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtrain.kernels.runtime import Build, Traffic, build_of, on_device_of, tl, triton

BLOCK, WARPS = 4096, 8
"""Columns of a row that a program takes at a time, and its warps: sixteen numbers a thread."""


def cross_entropy_reference(logits: Tensor, labels: Tensor, gradient: Tensor | None = None) -> Tensor:
    """Return what :func:`cross_entropy` returns and write what it writes, in plain PyTorch; in fp64 if ``logits`` are.

    Where the kernel does not serve, the head computes a gradient that is divided after the product with its weight
    (:func:`cbtrain.model.head.losses_and_slopes`)."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(wide, labels, reduction="none")
    if gradient is not None:
        slopes = torch.softmax(wide, -1)
        slopes.scatter_add_(-1, labels[:, None], slopes.new_full((len(labels), 1), -1))
        gradient.copy_(slopes)
    return losses


def cross_entropy(logits: Tensor, labels: Tensor, gradient: Tensor | None = None) -> Tensor:
    """Return the cross-entropy in nats of each row of ``logits`` (fp32 or bf16 ``[S, V]``, a row without gaps) with
    ``labels`` (int64 ``[S]``): fp32 ``[S]``. A label that is no column of the row gives NaN.

    ``gradient`` (``[S, V]``, fp32 or bf16, a row without gaps) takes the gradient of each row's loss by its logits. It
    may be ``logits``. Nothing waits for the device.
    """
    rows, columns = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    out = logits if gradient is None else gradient
    if logits.stride(1) != 1 or out.stride(1) != 1 or out.shape != logits.shape or not labels.is_contiguous():
        raise ValueError("cross_entropy needs rows without gaps, labels without gaps and a gradient of the same shape")
    if rows:
        strides = logits.stride(0), out.stride(0)
        with on_device_of(logits):
            _cross_entropy[(rows,)](
                logits,
                labels,
                losses,
                out,
                *strides,
                columns,
                WRITES=gradient is not None,
                BLOCK=BLOCK,
                num_warps=WARPS,
            )
    return losses


def traffic(vocabulary: int, logits_bytes: int, gradient_bytes: int) -> dict[str, Traffic]:
    """Return the bytes for one supervised token: a row is read twice, and must be read once. The second reading comes
    from memory where the rows that are worked on are larger than the cache.

    In PyTorch, whose logits have the dtype of the gradient: casts to fp32 and back, the largest, the difference, the
    exponential and the sum of a row."""
    once, written = vocabulary * logits_bytes + 8 + 4, vocabulary * gradient_bytes
    cast = 0 if gradient_bytes == 4 else 4 + gradient_bytes
    return {
        "losses": Traffic(once, once, vocabulary * (cast + 24)),
        "losses and gradients": Traffic(
            once + vocabulary * logits_bytes + written, once + written, vocabulary * (2 * cast + 24)
        ),
    }


def builds() -> list[Build]:
    """Return what is launched for the three families, whose vocabularies are all multiples of 16: logits that are
    overwritten, fp32 logits with a gradient in bf16, and losses alone."""
    kinds = [("bf16", "bf16", True), ("fp32", "fp32", True), ("fp32", "bf16", True)]
    kinds += [("bf16", "bf16", False), ("fp32", "fp32", False)]
    sizes = dict.fromkeys(("logits_stride", "gradient_stride", "columns"), "i32")
    return [
        build_of(
            "cross_entropy",
            _cross_entropy,
            {"LOGITS": f"*{logits}", "LABELS": "*i64", "LOSSES": "*fp32", "GRADIENT": f"*{gradient}", **sizes},
            {"WRITES": writes, "BLOCK": BLOCK},
            (),
            WARPS,
        )
        for logits, gradient, writes in kinds
    ]


if triton is not None:
    # More than seven parameters: four tensors, two strides, a size and two constants.
    @triton.jit
    def _cross_entropy(  # type: ignore[no-untyped-def]
        LOGITS,
        LABELS,
        LOSSES,
        GRADIENT,
        logits_stride,
        gradient_stride,
        columns,
        WRITES: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(0).to(tl.int64)  # the offset of a row passes 2^31 at 16,744 rows of 128,256
        logits, gradient = LOGITS + row * logits_stride, GRADIENT + row * gradient_stride
        label = tl.load(LABELS + row)
        at = tl.arange(0, BLOCK)

        # Each lane keeps its own largest and sum; a finite first value, as −inf less −inf would be NaN.
        largest = tl.full([BLOCK], -3.0e38, tl.float32)
        total = tl.zeros([BLOCK], tl.float32)
        picked = tl.zeros([BLOCK], tl.float32)
        for start in range(0, columns, BLOCK):
            column = start + at
            x = tl.load(logits + column, column < columns, -float("inf")).to(tl.float32)
            smaller = tl.exp(-tl.abs(x - largest))  # the one exponential that is not 1
            total = tl.where(x > largest, total * smaller + 1.0, total + smaller)
            largest = tl.maximum(largest, x)
            picked += tl.where(column == label, x, 0.0)
        highest = tl.max(largest, 0)
        total_of_row = tl.sum(total * tl.exp(largest - highest), 0)
        loss = tl.log(total_of_row) + highest - tl.sum(picked, 0)
        tl.store(LOSSES + row, tl.where((label >= 0) & (label < columns), loss, float("nan")))

        if WRITES:
            share = 1.0 / total_of_row
            last = (columns - 1) // BLOCK * BLOCK
            for start in range(0, columns, BLOCK):
                column = last - start + at  # backwards: what was read last may still lie in the cache
                x = tl.load(logits + column, column < columns, -float("inf")).to(tl.float32)
                slope = tl.exp(x - highest) * share - tl.where(column == label, 1.0, 0.0)
                tl.store(gradient + column, slope.to(GRADIENT.dtype.element_ty), column < columns)
