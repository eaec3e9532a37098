"""Floating-point operations of a micro-batch: the numerators of MFU and HFU.

The convention, for a frozen base. A frozen weight costs 2 operations a token in the forward pass and 2 for the
gradient of its input; its own gradient is never computed. With N the weights of the layers' linears, H those of the
head, P those of the adapter, A the forward cost of causal attention and s the share of tokens that reach the head:

- **model operations** (MFU): ``4 N + 4 s H + 3 A + 6 P`` a token;
- **hardware operations** (HFU): ``(4 + 2c) N + 4 s H + (3.5 + c) A + (6 + 2c) P``, where c is the share of a layer's
  forward pass that the backward pass computes again. Fused attention computes its scores again: hence 3.5.

Where all weights are trained it is ``6 N + 6 s H + 3 A``. ``6 N`` for LoRA would overstate by up to a half. Unpacking
NF4 counts in neither. Only supervised tokens reach the head, since the others cannot change a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from cbtrain.model.architecture import Architecture

RECOMPUTED = {"none": 0.0, "selective": 0.0, "full": 1.0}
"""c by level of activation checkpointing. Selective recomputes no large product; the rest is not counted here."""


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of forward and backward pass together."""

    model: float
    hardware: float

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.model + other.model, self.hardware + other.hardware)


def linear_weights(a: Architecture) -> int:
    """Return N: the number of weights of all layers' linears."""
    attention = a.hidden * a.head_dim * (2 * a.heads + 2 * a.kv_heads)
    return a.layers * (attention + 3 * a.hidden * a.intermediate)


def micro_batch_flops(
    a: Architecture,
    cu_seqlens: Sequence[int],
    supervised: int,
    *,
    adapter: int,
    full: bool = False,
    activation_checkpointing: str = "none",
) -> Flops:
    """Return the FLOPs of one pack whose documents begin at ``cu_seqlens``, with ``supervised`` labels.

    ``adapter`` counts the trained parameters besides the base; with ``full`` the base's own weights are trained.
    """
    tokens, recomputed = cu_seqlens[-1], RECOMPUTED[activation_checkpointing]
    weights, head = linear_weights(a) * tokens, a.hidden * a.vocabulary * supervised
    attention = 2 * a.layers * a.heads * a.head_dim * sum(_pairs(end - begin, a) for begin, end in pairwise(cu_seqlens))
    passes = 6 if full else 4
    adapter_work = 0 if full else adapter * tokens
    model = passes * (weights + head) + 3 * attention + 6 * adapter_work
    hardware = (passes + 2 * recomputed) * weights + passes * head + (3.5 + recomputed) * attention
    hardware += (6 + 2 * recomputed) * adapter_work
    return Flops(float(model), float(hardware))


def step_flops(
    a: Architecture,
    packs: Sequence[Sequence[int]],
    supervised: int,
    *,
    adapter: int,
    full: bool = False,
    activation_checkpointing: str = "none",
) -> Flops:
    """Return the FLOPs of an optimizer step, all ranks together: ``packs`` are the lengths of their documents,
    ``supervised`` counts the labels of all."""
    # Documents do not see each other: end to end they cost what they cost in several packs.
    cu_seqlens = list(accumulate((length for pack in packs for length in pack), initial=0))
    return micro_batch_flops(
        a, cu_seqlens, supervised, adapter=adapter, full=full, activation_checkpointing=activation_checkpointing
    )


def _pairs(length: int, a: Architecture) -> float:
    """Return twice the number of query-key pairs in a document: length², less those outside a sliding window."""
    window = a.sliding_window
    if window is None or length <= window:
        return float(length**2)
    return float(window**2 + 2 * (length - window) * window)
