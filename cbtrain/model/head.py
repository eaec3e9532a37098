"""The language-model head, and the cross-entropy of many rows against a large vocabulary.

A row of logits over 128,000 words takes half a megabyte in fp32, and autograd wants several of them: for 10,000
supervised tokens that is more than the model. So rows are taken some at a time. Where the head is frozen, the gradient
of a row's loss is worked out in the forward pass already and only scaled in the backward pass (as in Liger Kernel,
Hsu et al. 2024, arXiv 2410.10989): it costs no operation more than the plain way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cbtrain.kernels.cross_entropy import cross_entropy
from cbtrain.model.linears.dense import DenseLinear
from cbtrain.model.stretches import stretches

LOGITS_AT_ONCE = {"cpu": 2**22, "cuda": 2**27}
"""Numbers in the logits of one stretch of rows, by kind of device: 17 MB in fp32 on CPUs, half a gigabyte on GPUs,
which need more rows to be busy."""

FEWEST_ROWS = 256
"""Rows of a stretch at least: each reads the whole head from memory."""


class Head(DenseLinear):
    """Logits of each row; with ``labels`` the losses of the rows in stretches of ``rows``, for a frozen head. Both are
    calls of the module: DeepSpeed's ZeRO-3 fetches weights around those.

    ``kind`` is the kind of device for which stretches are made, if it is another than the one it is on (in planning).
    ``kernel`` asks for the Triton kernel of :mod:`cbtrain.kernels.cross_entropy`.
    """

    kind: str | None = None
    kernel = False

    def forward(self, x: Tensor, labels: Tensor | None = None, rows: int = 0) -> Tensor:
        if labels is None:
            return F.linear(x, self.weight, self.bias)
        kernel = self.kernel and x.dtype != torch.float64
        losses: Tensor = _FrozenHead.apply(x, self.weight, labels, rows, kernel)
        return losses

    def token_losses(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy in nats of ``hidden [S, hidden]`` with ``labels`` int64 ``[S]``, row by row: fp32
        ``[S]``. Logits are computed for some rows at a time."""
        rows = self.rows_at_once(hidden)
        if not self.weight.requires_grad:
            losses: Tensor = self(hidden, labels, rows)
            return losses
        # Ranks that share a head (ZeRO-3) must all call it alike, however many rows each has.
        shared = hasattr(self.weight, "ds_id")
        return plain(self, hidden, labels) if shared else in_stretches(self, hidden, labels, rows)

    def rows_at_once(self, hidden: Tensor) -> int:
        """Return the number of rows whose logits are computed together."""
        return rows_at_once(self.out_features, self.kind or hidden.device.type)


def rows_at_once(vocabulary: int, kind: str) -> int:
    """Return the number of rows whose logits are computed together on a device of this kind."""
    return max(FEWEST_ROWS, LOGITS_AT_ONCE.get(kind, LOGITS_AT_ONCE["cpu"]) // vocabulary)


def in_stretches(head: nn.Module, hidden: Tensor, labels: Tensor, rows: int) -> Tensor:
    """Return :meth:`Head.token_losses`, ``rows`` at a time, for a ``head`` that is trained: its gradient depends on the
    weight of each loss, which is known later, so logits are computed twice."""
    if len(hidden) <= rows:
        return plain(head, hidden, labels)
    losses = partial(checkpoint, plain, head, use_reentrant=False, preserve_rng_state=False)
    return torch.cat(
        [losses(*rows_and_labels) for rows_and_labels in zip(hidden.split(rows), labels.split(rows), strict=True)]
    )


def plain(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    """Return :meth:`Head.token_losses` with the logits of all rows at once, by autograd."""
    return F.cross_entropy(head(hidden).float(), labels, reduction="none")


class _FrozenHead(torch.autograd.Function):
    """Losses of rows, and the gradient of each by its row of ``hidden``, a stretch of rows at a time."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, rows: int, kernel: bool) -> Tensor:
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        wide = torch.promote_types(hidden.dtype, torch.float32)
        losses = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        most, compute = min(rows, len(hidden)), _by_kernel if kernel else _by_operations
        memory = hidden.new_empty(most, len(weight), dtype=_logits_dtype(weight) if kernel else weight.dtype)
        for some in stretches(len(hidden), rows, hidden.is_meta):
            into = None if gradient is None else gradient[some]
            losses[some] = compute(hidden[some], weight, labels[some], memory, into)
        ctx.save_for_backward(*(() if gradient is None else (gradient,)))
        return losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (grad[:, None] * gradient).to(gradient.dtype), None, None, None, None


def losses_and_slopes(logits: Tensor, labels: Tensor, slopes: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Return the losses of rows of ``logits``, their gradients times Z, and Z, in fp32 at least; ``logits`` in fp32 are
    overwritten. With E the exponentials of a row (less its largest) and Z their sum, a gradient is
    ``(E − Z · one-hot) / Z``; without ``slopes`` E is returned."""
    target, wide = labels[:, None], logits.to(torch.promote_types(logits.dtype, torch.float32))
    largest, picked = wide.amax(-1, keepdim=True), wide.gather(-1, target)
    total = wide.sub_(largest).exp_().sum(-1, keepdim=True)
    losses = (total.log() + largest - picked)[:, 0]
    return losses, wide.scatter_add_(-1, target, -total) if slopes else wide, total


def _by_operations(part: Tensor, weight: Tensor, labels: Tensor, memory: Tensor, gradient: Tensor | None) -> Tensor:
    """Return the losses of the rows ``part``, and write their gradients: the division by Z waits for the narrow
    result."""
    logits = torch.mm(part, weight.t(), out=memory[: len(part)])
    losses, slopes, total = losses_and_slopes(logits, labels, gradient is not None)
    if gradient is not None:
        product = slopes.to(weight.dtype) @ weight
        gradient.copy_(product.div_(total) if product.dtype == total.dtype else product / total)
    return losses


def _by_kernel(part: Tensor, weight: Tensor, labels: Tensor, memory: Tensor, gradient: Tensor | None) -> Tensor:
    """Do the same with a Triton kernel between the two products. Its gradients lie over the logits, unless these are
    wider than the weight."""
    logits, labels = memory[: len(part)], labels.contiguous()
    if logits.dtype == weight.dtype:
        torch.mm(part, weight.t(), out=logits)
    else:
        torch.mm(part, weight.t(), out_dtype=logits.dtype, out=logits)
    if gradient is None:
        return cross_entropy(logits, labels)
    slopes = logits if logits.dtype == weight.dtype else torch.empty_like(logits, dtype=weight.dtype)
    losses = cross_entropy(logits, labels, slopes)
    torch.mm(slopes, weight, out=gradient)
    return losses


def _logits_dtype(weight: Tensor) -> torch.dtype:
    """Return fp32 where a product of bf16 can keep what it has summed in fp32: on CUDA, since torch 2.8."""
    keeps = weight.is_cuda and hasattr(torch.ops.aten.mm, "dtype_out")
    return torch.float32 if keeps else weight.dtype
