"""Cross-entropy of rows of logits and its gradient, in one launch that reads each row twice and writes it once.

A program takes one row. It first reads it with the largest logit so far and the sum of exponentials relative to that
(Milakov and Gimelshein 2018, arXiv 1805.02867), then reads it again and writes ``softmax − one-hot``, over the logits
or into a tensor of another dtype. PyTorch's operations pass over such rows about eight times.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtrain.kernels.runtime import Build, Traffic, tl, triton

BLOCK, WARPS = 4096, 8
"""Columns of a row that a program takes at a time, and its warps: sixteen numbers a thread."""

VOCABULARIES = (128_256, 152_064, 32_768)
"""Of Llama 3.1 8B, Qwen 2.5 7B and Mistral 7B v0.3."""


def cross_entropy_reference(logits: Tensor, labels: Tensor, gradient: Tensor | None = None) -> Tensor:
    """Return what :func:`cross_entropy` returns and write what it writes, in plain PyTorch."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(wide, labels, reduction="none")
    if gradient is not None:
        one_hot = F.one_hot(labels, logits.shape[-1])
        gradient.copy_(torch.softmax(wide, -1) - one_hot)
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
        _cross_entropy[(rows,)](
            logits, labels, losses, out, *strides, columns, WRITES=gradient is not None, BLOCK=BLOCK, num_warps=WARPS
        )
    return losses


def traffic(vocabulary: int, logits_bytes: int, gradient_bytes: int) -> Traffic:
    """Return the bytes for one supervised token: its row is read twice and written once. A row of 128,000 logits is too
    large for a multiprocessor's own memory, so that the second reading is needed too."""
    moved = vocabulary * (2 * logits_bytes + gradient_bytes) + 8 + 4
    # The plain way rounds logits to the dtype of the weight, and passes over the row for the cast to fp32, the largest,
    # the difference, the exponential, the sum and the cast for the product.
    casts = 0 if gradient_bytes == 4 else 2 * (4 + gradient_bytes)
    return Traffic(moved, moved, vocabulary * (casts + 4 + 8 + 8 + 4) + 8 + 4)


def builds() -> list[Build]:
    """Return what is compiled for the three families: logits in the computing dtype that are overwritten, fp32 logits
    with a gradient in bf16, and losses alone."""
    if triton is None:
        return []
    kinds = [("bf16", "bf16", True), ("fp32", "fp32", True), ("fp32", "bf16", True), ("fp32", "fp32", False)]
    return [
        Build(
            kernel="cross_entropy",
            function=_cross_entropy,
            signature={
                "LOGITS": f"*{logits}",
                "LABELS": "*i64",
                "LOSSES": "*fp32",
                "GRADIENT": f"*{gradient}",
                "logits_stride": "i32",
                "gradient_stride": "i32",
                "columns": "i32",
                "WRITES": "constexpr",
                "BLOCK": "constexpr",
            },
            constants={"WRITES": writes, "BLOCK": BLOCK},
            aligned=(0, 1, 2, 3, 4, 5, 6),
            warps=WARPS,
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
            for start in range(0, columns, BLOCK):
                column = start + at
                x = tl.load(logits + column, column < columns, -float("inf")).to(tl.float32)
                slope = tl.exp(x - highest) * share - tl.where(column == label, 1.0, 0.0)
                tl.store(gradient + column, slope.to(GRADIENT.dtype.element_ty), column < columns)
