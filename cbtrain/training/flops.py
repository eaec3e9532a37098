"""Floating-point operations of a micro-batch: the numerators of MFU and HFU.

The convention, for a frozen base. A frozen weight costs 2 operations a token in the forward pass and 2 for the
gradient of its input; its own gradient is never computed. With N the weights of the layers' linears, H those of the
head, P those of the adapter, A the forward cost of causal attention and s the share of tokens that reach the head:

- **model operations** (MFU): ``4 N + 4 s H + 3 A + 6 P`` a token;
- **hardware operations** (HFU): ``4 N + 2 C + 4 s H + (3.5 + c) A + (7 + 2 C / N) P``, where C are the weights of the
  linears that the backward pass computes again, and c is 1 for layers whose attention it does. Fused attention computes
  its scores again: hence 3.5; so are the products with A: hence 7. The last layer's linears after attention are
  computed for supervised tokens only, which MFU does not subtract: others count them too. Layers that are left to
  autograd keep the products with A (6 in place of 7), and compute ``down_proj`` again where they compute the MLP again.

A method that computes products with whole weights for its update (sparse deltas: the gradient of all of them) does
those operations in place of the last term of HFU. Where all weights are trained it is ``6 N + 6 s H + 3 A``; where a
share h of the linears is, ``(4 + 2 h) N``. ``6 N`` for LoRA would overstate by up to a half. Unpacking NF4 counts in
neither. Only supervised tokens reach the head, since the others cannot change a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from cbtrain.model.architecture import Architecture
from cbtrain.model.fused.levels import levels_of


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of forward and backward pass together."""

    model: float
    hardware: float

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.model + other.model, self.hardware + other.hardware)


@dataclass(frozen=True, slots=True)
class Training:
    """How weights are trained: ``adapter`` counts the trained parameters besides the base; with ``full`` the base's own
    are trained, of its linears a ``share``. ``dense`` counts weights times products with all of them that the method
    adds to a pass. ``activation_checkpointing`` is one level for all layers, or one for each.
    ``fused`` says that layers are computed by :mod:`cbtrain.model.fused`, ``pruned`` that the last of them is for
    supervised tokens only."""

    adapter: int
    full: bool = False
    share: float = 1.0
    activation_checkpointing: str | Sequence[str] = "none"
    fused: bool = True
    pruned: bool = True
    dense: int = 0


def linear_weights(a: Architecture) -> int:
    """Return N: the number of weights of all layers' linears."""
    attention = a.hidden * a.head_dim * (2 * a.heads + 2 * a.kv_heads)
    return a.layers * (attention + 3 * a.hidden * a.intermediate)


def micro_batch_flops(
    a: Architecture, cu_seqlens: Sequence[int], supervised: int, training: Training, hidden: int = 0
) -> Flops:
    """Return the FLOPs of one pack whose documents begin at ``cu_seqlens``, with ``supervised`` labels. ``hidden``
    counts pairs of a query and an earlier key in one document that do not see each other: of two branches."""
    tokens, levels = cu_seqlens[-1], levels_of(training.activation_checkpointing, a.layers)
    weights, head = linear_weights(a) * tokens, a.hidden * a.vocabulary * supervised
    seen = sum(_pairs(end - begin, a) for begin, end in pairwise(cu_seqlens)) - 2 * hidden
    layer = 2 * a.heads * a.head_dim * max(seen, 0)
    attention = a.layers * layer
    passes, of_head = (4 + 2 * training.share, 6) if training.full else (4, 4)
    adapter_work = 0 if training.full else training.adapter * tokens
    fused = training.fused and not training.full
    model = passes * weights + of_head * head + 3 * attention + 6 * adapter_work
    again = sum(_weights_again(a, level, fused=fused) for level in levels) * tokens
    hardware = passes * weights + of_head * head + 2 * again + 3.5 * attention + layer * levels.count("full")
    if training.dense:
        hardware += 2 * training.dense * tokens
    else:
        hardware += (6 + fused + 2 * again / max(weights, 1)) * adapter_work
    if fused and training.pruned and a.layers:
        hardware -= passes * (tokens - supervised) * (linear_weights(a) / a.layers - _before_attention(a))
    return Flops(float(model), float(hardware))


def step_flops(
    a: Architecture, packs: Sequence[Sequence[int]], supervised: int, training: Training, hidden: int = 0
) -> Flops:
    """Return the FLOPs of an optimizer step, all ranks together: ``packs`` are the lengths of their documents,
    ``supervised`` counts the labels of all, ``hidden`` is that of :func:`micro_batch_flops`."""
    # Documents do not see each other: end to end they cost what they cost in several packs.
    cu_seqlens = list(accumulate((length for pack in packs for length in pack), initial=0))
    return micro_batch_flops(a, cu_seqlens, supervised, training, hidden)


def _weights_again(a: Architecture, level: str, *, fused: bool) -> int:
    """Return the weights of a layer's linears that are computed again at ``level``."""
    down = a.hidden * a.intermediate
    if level == "none":
        return 0
    computed = 3 * down if level == "mlp" else linear_weights(a) // a.layers
    return computed - fused * down


def _before_attention(a: Architecture) -> int:
    """Return the weights of query, key and value."""
    return a.hidden * a.head_dim * (a.heads + 2 * a.kv_heads)


def _pairs(length: int, a: Architecture) -> float:
    """Return twice the number of query-key pairs in a document: length², less those outside a sliding window."""
    window = a.sliding_window
    if window is None or length <= window:
        return float(length**2)
    return float(window**2 + 2 * (length - window) * window)
