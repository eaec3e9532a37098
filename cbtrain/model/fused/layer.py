"""One decoder layer with frozen weights and adapters, forward and backward by hand.

Autograd would keep every result of a layer that some gradient needs. Here only these are kept, at the level ``none``:
the layer's input, query, key and value, the output of attention, the sum after it, and the outputs of gate and up.
Norms and activation are computed again from them; so are matrix products at higher levels
(:mod:`cbtrain.model.fused.levels`). The product of ``down_proj`` never is: nothing needs its output.

Rows are taken some at a time, so that what lies between two products stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor

from cbtrain.model.adapters.lora_linear import LoraLinear
from cbtrain.model.fused.attending import Attending
from cbtrain.model.fused.elementwise import PLAIN, Elementwise
from cbtrain.model.fused.joined import Joined, Matrix
from cbtrain.model.fused.levels import KEEPS_MIDDLE
from cbtrain.model.fused.part import Part
from cbtrain.model.stretches import stretches

ROWS = 1024
"""Rows at a time on CPUs. On GPUs all are computed together, where fewer launches count for more."""


FOLD_FROM = 2048
"""Rows from which it is cheaper to add the side paths to the weights than to compute them beside each product."""


class Weights:
    """The joined linears of one layer."""

    def __init__(self, block: Any) -> None:
        self.joined = [Joined([_base(module) for module in modules]) for modules in sharing_input(block)]

    @classmethod
    def of(cls, block: Any) -> Weights:
        """Return those of ``block``, made at the first call, and anew if its linears are others."""
        weights = cast("Weights | None", getattr(block, "joined_weights", None))
        if weights is None or not weights._belong_to(block):
            weights = block.joined_weights = cls(block)
        return weights

    def _belong_to(self, block: Any) -> bool:
        now = [_base(module) for modules in sharing_input(block) for module in modules]
        had = [linear for joined in self.joined for linear in joined.linears]
        return all(a is b for a, b in zip(now, had, strict=True))


NAMES = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""Paths in a layer of the linears that share an input."""


def sharing_input(block: Any) -> tuple[list[Any], ...]:
    """Return the linears of ``block``, adapted or not, as :data:`NAMES` has them."""
    a, m = block.self_attn, block.mlp
    return [a.q_proj, a.k_proj, a.v_proj], [a.o_proj], [m.gate_proj, m.up_proj], [m.down_proj]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one adapter in a pass with several: ``tokens`` of them, of which ``selected`` are asked for. ``modules``
    are its linears by path."""

    modules: Mapping[str, LoraLinear]
    tokens: int
    selected: int


@dataclass(frozen=True, slots=True)
class How:
    """``level`` says what a pass keeps (:data:`cbtrain.model.fused.levels.LEVELS`). If ``rows`` (int64) are given, the
    result is that of these only. ``at_once`` rows are computed at a time. ``folds`` allows to add an adapter to a copy
    of the weight. ``groups``, if there are any, have adapters of their own, in place of those in the decoder.
    ``between`` computes what lies between the matrix products."""

    level: str = "none"
    rows: Tensor | None = None
    at_once: int = ROWS
    folds: bool = True
    groups: tuple[Group, ...] = ()
    between: Elementwise = PLAIN


def fused_layer(
    block: Any,
    x: Tensor,
    angles: tuple[Tensor, Tensor],
    attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
    how: How,
) -> Tensor:
    """Return the output ``[T, hidden]`` of ``block`` for ``x [T, hidden]``, as ``how`` says. ``angles`` are cosines and
    sines ``[T, head_dim / 2]`` in the dtype of ``x``. Gradients flow to ``x`` and to the adapters' parameters."""
    call = _Call(block, angles, attend, how)
    out: Tensor = _Layer.apply(x, call, *call.parameters)
    return out


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, call: _Call, *parameters: Tensor) -> Tensor:
        ctx.call = call
        ctx.save_for_backward(x)
        return call.forward(x, keep=any(ctx.needs_input_grad))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        grad_x = ctx.call.backward(x, grad.contiguous(), wanted=ctx.needs_input_grad[0])
        return (grad_x, None, *ctx.call.gradients())


class _Call:
    """One pass through one layer, and what it keeps."""

    def __init__(self, block: Any, angles: tuple[Tensor, Tensor], attend: Any, how: How) -> None:
        self.block, self.attention = block, block.self_attn
        self.level, self.rows, self.at_once, self.between = how.level, how.rows, how.at_once, how.between
        self.cos, self.sin = angles
        self.attend, self.kept = attend, _Kept()
        folds = how.folds and len(self.cos) >= FOLD_FROM
        self.qkv, self.out, self.gate_up, self.down = (
            Part(joined, self._groups(number, how), self.cos.dtype, folds=folds)
            for number, joined in enumerate(Weights.of(block).joined)
        )
        self.parameters = [p for part in self._parts() for p in part.parameters]

    def _groups(self, number: int, how: How) -> list[tuple[slice | None, list[Any]]]:
        """Return the groups of rows of a part, the first of which is before attention, the others after it."""
        if not how.groups:
            return [(None, sharing_input(self.block)[number])]
        counts = [group.tokens if number == 0 or how.rows is None else group.selected for group in how.groups]
        ends = list(accumulate(counts))
        paths = [f"layers.{self.attention.layer}.{name}" for name in NAMES[number]]
        return [
            (slice(end - count, end), [group.modules.get(path) for path in paths])
            for group, count, end in zip(how.groups, counts, ends, strict=True)
        ]

    def _parts(self) -> tuple[Part, ...]:
        return self.qkv, self.out, self.gate_up, self.down

    def gradients(self) -> Iterator[Tensor]:
        for part in self._parts():
            yield from part.gradients()

    def forward(self, x: Tensor, *, keep: bool) -> Tensor:
        attending = self._attend(x, keep=keep and self.level in KEEPS_MIDDLE)
        residual, attended = self._selected(x, attending.out)
        count, out, kept = len(residual), torch.empty_like(residual), self.kept
        middle = torch.empty_like(residual) if keep and self.level in KEEPS_MIDDLE else None
        wide = self.gate_up.joined.out_features
        gate_up = x.new_empty(count, wide) if keep and self.level == "none" else None
        matrices = [part.matrices() for part in (self.out, self.gate_up, self.down)]
        for some in stretches(count, self.at_once, x.is_meta):
            m, h, _ = self._middle(residual[some], attended[some], some, matrices[0], middle)
            g = self._gate_up(h, some, matrices[1], gate_up)
            del h
            self.down.add(self.between.swiglu(*g.chunk(2, -1)), some, matrices[2], to=m, out=out[some])
        if keep:
            kept.attending = attending if self.level != "full" else None
            kept.middle, kept.gate_up = middle, gate_up
        return out

    def backward(self, x: Tensor, grad: Tensor, *, wanted: bool) -> Tensor | None:
        """Return the gradient of ``x`` if it is ``wanted``; those of the adapters are summed in the parts."""
        kept, self.kept = self.kept, _Kept()  # it is written over; a second time, all of it is computed again
        sources: list[Tensor] = []
        attending = kept.attending
        if attending is None:
            attending = self._attend(x, keep=True)
        elif self.level not in KEEPS_MIDDLE:
            sources = self._project(x)[1]
        grad_middle, grad_attended = self._backward_after(x, attending.out, grad, kept)
        if not wanted and not self.qkv.sides:
            return None
        if self.rows is not None:
            grad_middle = x.new_zeros(x.shape).index_copy_(0, self.rows, grad_middle) if wanted else grad_middle
            grad_attended = x.new_zeros(len(x), grad_attended.shape[1]).index_copy_(0, self.rows, grad_attended)
        grads = attending.backward(grad_attended.view_as(attending.out), sources)
        del attending, grad_attended, kept, sources
        return self._backward_before(x, grads, grad_middle if wanted else None)

    # Before attention: norm, query, key and value, rotation.

    def _attend(self, x: Tensor, *, keep: bool) -> Attending:
        inputs, sources = self._project(x)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return cast(Tensor, self.attend(self.attention.layer, q, k, v))

        return Attending(attend, inputs, sources, keep=keep)

    def _project(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return query, key and value ``[T, heads, head_dim]``, rotated, and the tensors into which they are views."""
        a, weight = self.attention, self.block.input_layernorm
        qkv, matrices = x.new_empty(len(x), self.qkv.joined.out_features), self.qkv.matrices()
        queries, keys, values = (qkv[:, columns].unflatten(-1, (-1, a.head_dim)) for columns in self._columns())
        sources = [qkv]
        if a.qk_norm:  # what the norms are applied to is needed again
            normed = x.new_empty(len(x), self._columns()[1].stop)
            raw = queries, keys
            queries, keys = (normed[:, columns].unflatten(-1, (-1, a.head_dim)) for columns in self._columns()[:2])
            sources.append(normed)
        for some in stretches(len(x), self.at_once, x.is_meta):
            h, _ = self.between.norm(x[some], weight.weight, weight.eps)
            self.qkv.forward(h, some, matrices, qkv[some])
            if a.qk_norm:
                for n, before, after in zip((a.q_norm, a.k_norm), raw, (queries, keys), strict=True):
                    self.between.norm(before[some], n.weight, n.eps, out=after[some])
            self.between.rotate((queries[some], keys[some]), self.cos[some], self.sin[some])
        return [queries, keys, values], sources

    def _backward_before(self, x: Tensor, grads: tuple[Tensor, ...], grad_x: Tensor | None) -> Tensor | None:
        """Add to ``grad_x``, if there is one, the gradient of ``x`` for those of query, key and value; return it."""
        a, weight, matrices = self.attention, self.block.input_layernorm, self.qkv.matrices()
        for some in stretches(len(x), self.at_once, x.is_meta):
            h, inverse = self.between.norm(x[some], weight.weight, weight.eps)
            joined = x.new_empty(len(h), self.qkv.joined.out_features)
            q, k, v = (joined[:, columns].unflatten(-1, (-1, a.head_dim)) for columns in self._columns())
            v.copy_(grads[2][some])
            turned = grads[0][some], grads[1][some]
            self.between.rotate(turned, self.cos[some], self.sin[some], back=True, out=(q, k))
            if a.qk_norm:
                self._backward_qk_norms(h, some, matrices, joined)
            grad_h = torch.empty_like(h) if grad_x is not None else None
            self.qkv.backward(h, some, joined, matrices, grad_h)
            if grad_h is not None and grad_x is not None:
                self.between.norm_backward(grad_h, x[some], weight.weight, inverse, grad_x[some], add=grad_x[some])
        return grad_x

    def _backward_qk_norms(self, h: Tensor, some: slice, matrices: list[Matrix], joined: Tensor) -> None:
        a = self.attention
        raw = self.qkv.forward(h, some, matrices, torch.empty_like(joined))
        for n, columns in zip((a.q_norm, a.k_norm), self._columns()[:2], strict=True):
            before, part = (t[:, columns].unflatten(-1, (-1, a.head_dim)) for t in (raw, joined))
            inverse = self.between.inverse_rms(before, n.eps)
            self.between.norm_backward(part, before, n.weight, inverse, part)

    def _columns(self) -> list[slice]:
        return self.qkv.joined.columns

    # After attention: output product, norm, gate and up, activation, down.

    def _selected(self, x: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        attended = attended.flatten(-2)
        return (x, attended) if self.rows is None else (x[self.rows], attended[self.rows])

    def _middle(
        self, residual: Tensor, attended: Tensor, some: slice, matrices: list[Matrix], whole: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sum after attention of the rows ``some``, as a part of ``whole`` if that is kept, its norm, and
        1/rms."""
        out = torch.empty_like(residual) if whole is None else whole[some]
        if not self.between.adds:
            return self._normed(self.out.add(attended, some, matrices, to=residual, out=out))
        return self._normed(self.out.forward(attended, some, matrices, out), add=residual)

    def _normed(self, middle: Tensor, add: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``middle``, to which ``add`` is added first, its norm, and 1/rms."""
        weight = self.block.post_attention_layernorm
        return middle, *self.between.norm(middle, weight.weight, weight.eps, add=add)

    def _gate_up(self, h: Tensor, some: slice, matrices: list[Matrix], whole: Tensor | None) -> Tensor:
        """Return gate and up for ``h``, the rows ``some``, as a part of ``whole`` if that is kept."""
        wide = self.gate_up.joined.out_features
        out = h.new_empty(len(h), wide) if whole is None else whole[some]
        return self.gate_up.forward(h, some, matrices, out)

    def _backward_after(self, x: Tensor, attended: Tensor, grad: Tensor, kept: _Kept) -> tuple[Tensor, Tensor]:
        """Return the gradients of the sum after attention and of attention's output, for ``grad`` of the output."""
        residual, attended = self._selected(x, attended)
        weight = self.block.post_attention_layernorm
        grad_middle, grad_attended = torch.empty_like(grad), torch.empty_like(attended)
        matrices = [part.matrices() for part in (self.out, self.gate_up, self.down)]
        for some in stretches(len(residual), self.at_once, x.is_meta):
            if kept.middle is None:
                middle, h, inverse = self._middle(residual[some], attended[some], some, matrices[0], None)
            else:
                middle, h, inverse = self._normed(kept.middle[some])
            gate_up = self._gate_up(h, some, matrices[1], None) if kept.gate_up is None else kept.gate_up[some]
            activated = self.between.swiglu(*gate_up.chunk(2, -1))
            grad_activated = torch.empty_like(activated)
            self.down.backward(activated, some, grad[some], matrices[2], grad_activated)
            self.between.swiglu_backward(grad_activated, *gate_up.chunk(2, -1))
            grad_h = torch.empty_like(h)
            self.gate_up.backward(h, some, gate_up, matrices[1], grad_h)
            self.between.norm_backward(grad_h, middle, weight.weight, inverse, grad_middle[some], add=grad[some])
            self.out.backward(attended[some], some, grad_middle[some], matrices[0], grad_attended[some])
        return grad_middle, grad_attended


class _Kept:
    """What a pass keeps for its backward pass; None is computed again."""

    attending: Attending | None = None
    middle: Tensor | None = None
    gate_up: Tensor | None = None


def _base(module: Any) -> Any:
    return module.base if isinstance(module, LoraLinear) else module
