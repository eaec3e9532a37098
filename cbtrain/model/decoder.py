"""The decoder that trains and generates: one class for the Llama, Mistral, Qwen2 and Qwen3 shapes.

Tokens come as one flat row ``[T]`` (packed documents or the new tokens of many conversations); what differs between
training and generation is only where keys and values are kept, and that is the ``attend`` argument. Module names
follow the Hugging Face checkpoints, so that weights and adapters need no renaming beyond a prefix. ``docs/model.md``
shows how to load, call and generate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtrain.kernels.rms_norm import FrozenNorm
from cbtrain.model.activation_checkpointing import checkpointed
from cbtrain.model.adapters.adapter import Adapter
from cbtrain.model.architecture import Architecture
from cbtrain.model.attention.branches import Borders, BranchedAttention
from cbtrain.model.attention.cu_seqlens import CuSeqlens
from cbtrain.model.attention.packed import choose_backend, packed_attention
from cbtrain.model.fused.elementwise import PLAIN, Elementwise
from cbtrain.model.fused.layer import ROWS, Group, How, fused_layer
from cbtrain.model.fused.levels import levels_of
from cbtrain.model.fused.obstacles import obstacle
from cbtrain.model.fused.savings import Savings
from cbtrain.model.head import Head, plain
from cbtrain.model.kernel_choice import Kernels
from cbtrain.model.linears.dense import DenseLinear
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.linears.linear import Linear
from cbtrain.model.linears.nf4 import Nf4Linear
from cbtrain.model.rope import apply_rope, cos_sin, inverse_frequencies
from cbtrain.model.without_gradients import hidden_states

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""``attend(layer, q [T, heads, head_dim], k, v [T, kv_heads, head_dim]) -> [T, heads, head_dim]``"""

MakeLinear = Callable[..., Linear]
"""``make(in_features, out_features, *, bias)``"""


class PackedAttention:
    """``attend`` for documents that lie end to end: no cache, no attention across documents."""

    def __init__(self, cu_seqlens: Sequence[int], window: int | None, backend: str = "auto") -> None:
        self.cu_seqlens, self.window, self.backend = CuSeqlens(cu_seqlens), window, backend

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return packed_attention(
            q,
            k,
            v,
            cu_seqlens_q=self.cu_seqlens,
            cu_seqlens_k=self.cu_seqlens,
            window=self.window,
            backend=self.backend,
        )


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019) in fp32, with the cast order of the Hugging Face models; while
    its weight is frozen by a Triton ``kernel``, if that is asked for."""

    kernel = False

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel and not self.weight.requires_grad and takes_kernels(self.weight):
            normed: Tensor = FrozenNorm.apply(x, self.weight, self.eps)
            return normed
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def takes_kernels(weight: Tensor) -> bool:
    """Return whether kernels may read ``weight``: they compute in fp32, and cannot fetch what ZeRO-3 partitions."""
    return weight.dtype != torch.float64 and not hasattr(weight, "ds_id")


class SelfAttention(nn.Module):
    def __init__(self, a: Architecture, layer: int, linear: MakeLinear) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, a.head_dim
        self.q_proj = linear(a.hidden, a.heads * a.head_dim, bias=a.qkv_bias)
        self.k_proj = linear(a.hidden, a.kv_heads * a.head_dim, bias=a.qkv_bias)
        self.v_proj = linear(a.hidden, a.kv_heads * a.head_dim, bias=a.qkv_bias)
        self.o_proj = linear(a.heads * a.head_dim, a.hidden, bias=a.out_bias)
        if a.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(a.head_dim, a.norm_eps), RMSNorm(a.head_dim, a.norm_eps)
        self.qk_norm = a.qk_norm

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        q = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (-1, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
        return cast(Tensor, self.o_proj(attend(self.layer, q, k, v).flatten(-2)))


class MLP(nn.Module):
    def __init__(self, a: Architecture, linear: MakeLinear) -> None:
        super().__init__()
        self.gate_proj = linear(a.hidden, a.intermediate, bias=a.mlp_bias)
        self.up_proj = linear(a.hidden, a.intermediate, bias=a.mlp_bias)
        self.down_proj = linear(a.intermediate, a.hidden, bias=a.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)))


class Block(nn.Module):
    def __init__(self, a: Architecture, layer: int, linear: MakeLinear) -> None:
        super().__init__()
        self.self_attn = SelfAttention(a, layer, linear)
        self.mlp = MLP(a, linear)
        self.input_layernorm = RMSNorm(a.hidden, a.norm_eps)
        self.post_attention_layernorm = RMSNorm(a.hidden, a.norm_eps)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        attend: Attend,
        through_mlp: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the layer's output ``[T, hidden]``. ``through_mlp`` calls the MLP in another way."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, attend)
        return x + (through_mlp or self.mlp)(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """``forward`` returns final hidden states; ``logits`` projects those that are needed to the vocabulary.

    This is exact and saves most of the head's work: the loss needs the target positions only, generation the last
    position of each conversation.

    ``linear`` makes the seven linears of a layer (:mod:`cbtrain.model.linears`); embeddings, norms and head are dense.
    ``attention`` names the attention back-end that is wanted, ``activation_checkpointing`` how much of a layer, or
    of each, the backward pass computes again (:mod:`cbtrain.model.fused.levels`). Layers that can be are computed by
    :mod:`cbtrain.model.fused` in training, with ``savings``. ``kernels`` are the Triton kernels that are used.
    ``adapter`` is what fine-tuning adds,
    ``fingerprint`` the hash of the base's weights, ``source`` the parsed ``config.json`` of ``folder``, ``format`` the
    format in which the weights are held in memory.
    """

    frequencies: Tensor

    def __init__(self, architecture: Architecture, linear: MakeLinear = DenseLinear) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.embed_tokens = nn.Embedding(a.vocabulary, a.hidden)
        self.layers = nn.ModuleList(Block(a, layer, linear) for layer in range(a.layers))
        self.norm = RMSNorm(a.hidden, a.norm_eps)
        self.lm_head = Head(a.hidden, a.vocabulary, bias=False)
        if a.tied_embeddings:
            self.lm_head.weight = cast(nn.Parameter, self.embed_tokens.weight)
        self.rope_factor = a.rope.attention_factor
        # Not part of any checkpoint, and kept in fp32 whatever the weights are: angles at position 100,000 need it.
        self.register_buffer("frequencies", inverse_frequencies(a.rope, a.head_dim), persistent=False)
        self.attention = "auto"
        self.activation_checkpointing: str | Sequence[str] = "none"
        self.savings = Savings()
        self.kernels = Kernels()
        self.adapter: Adapter | None = None
        self.fingerprint: str | None = None
        self.source: dict[str, Any] = {}
        self.folder: Path | None = None
        self.format: WeightFormat | None = None

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attend: Attend,
        rows: Tensor | None = None,
        groups: tuple[Group, ...] = (),
    ) -> Tensor:
        """Return hidden states ``[T, hidden]`` after the last norm, of ``rows`` (int64, no one twice) only if they are
        given. ``input_ids``, ``position_ids``: int64 ``[T]``. ``groups`` are rows with adapters of their own, in
        training, if the decoder has none (:func:`cbtrain.training.joint.joint_obstacle` says whether that can be)."""
        x = self.embed_tokens(input_ids)
        cos, sin = (t.to(x.dtype) for t in cos_sin(position_ids, self.frequencies, self.rope_factor))
        training = self.training and torch.is_grad_enabled()
        levels = levels_of(self.activation_checkpointing, len(self.layers))
        half, at_once = cos.shape[-1] // 2, ROWS if self.kind != "cuda" else max(1, len(x))
        angles, between = (cos[:, :half], sin[:, :half]), self.between
        if not (torch.is_grad_enabled() or between.plain):
            return hidden_states(self.layers, self.norm, x, angles, attend, between, rows)
        for number, layer in enumerate(self.layers):
            level = levels[number] if training else "none"
            if training and self.savings.fused and obstacle(layer) is None:
                # Attention needs all rows of the last layer, and what comes after it those of the result only.
                last = rows if self.savings.pruned and number == len(self.layers) - 1 else None
                how = How(level, last, at_once, self.savings.folded, groups, between)
                x = fused_layer(layer, x, angles, attend, how)
                rows = None if last is not None else rows
            elif level != "none":
                x = checkpointed(layer, level, x, cos, sin, attend)
            else:
                x = layer(x, cos, sin, attend)
        return cast(Tensor, self.norm(x if rows is None else x[rows]))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits ``[…, vocabulary]`` of ``hidden […, hidden]``, in the dtype of the head."""
        return cast(Tensor, self.lm_head(hidden))

    def token_losses(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy in nats of ``hidden [S, hidden]`` with ``labels`` int64 ``[S]``, row by row: fp32
        ``[S]``."""
        return self.lm_head.token_losses(hidden, labels) if self.savings.logits else plain(self.lm_head, hidden, labels)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return what a step updates, by name, in a fixed order: the adapter's parameters, or all if there is none."""
        parameters = self.adapter.parameters() if self.adapter else dict(self.named_parameters())
        return {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}

    @contextmanager
    def with_adapter(self, enabled: bool) -> Iterator[None]:
        """Run the body with the adapter on or off: one decoder serves the base arm and the tuned arm."""
        adapter = self.adapter
        if adapter is None or adapter.enabled == enabled:
            yield
            return
        adapter.enable(enabled)
        try:
            yield
        finally:
            adapter.enable(not enabled)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Decoder:
        super()._apply(fn, recurse)
        # Casts of the whole module would take the precision of far positions with them.
        self.frequencies = inverse_frequencies(self.architecture.rope, self.architecture.head_dim).to(self.device)
        return self

    def packed(self, cu_seqlens: Sequence[int], borders: Sequence[Borders] = ()) -> Attend:
        """Return ``attend`` for documents that begin at ``cu_seqlens`` (the first 0, the last the number of tokens);
        those with ``borders`` end in two branches (:mod:`cbtrain.model.attention.branches`)."""
        window = self.architecture.sliding_window
        if borders:
            return BranchedAttention(cu_seqlens, borders, window, self.attention)
        return PackedAttention(cu_seqlens, window, self.attention)

    @property
    def kernels(self) -> Kernels:
        """The Triton kernels that are used."""
        return self._kernels

    @kernels.setter
    def kernels(self, kernels: Kernels) -> None:
        self._kernels, self._between = kernels, Elementwise(kernels)
        self.norm.kernel = kernels.rms_norm
        for module in self.modules():  # an adapter may stand in a linear's place, or the head's
            if isinstance(module, Head):
                module.kernel = kernels.cross_entropy
            elif isinstance(module, Nf4Linear):
                module.kernel = kernels.nf4

    @property
    def between(self) -> Elementwise:
        """What computes between the layers' matrix products: plain PyTorch where kernels do not serve."""
        return self._between if takes_kernels(self.norm.weight) else PLAIN

    @property
    def device(self) -> torch.device:
        return self.norm.weight.device

    @property
    def trained_share(self) -> float:
        """The share of the linears' weights that are trained, of layers whose weights are parameters."""
        weights = [linear.get_parameter("weight") for linear in self.linears.values()]
        sizes = [getattr(weight, "ds_numel", weight.numel()) for weight in weights]  # ZeRO-3 holds a part
        trained = sum(size for size, weight in zip(sizes, weights, strict=True) if weight.requires_grad)
        return float(trained / sum(sizes))

    @property
    def kernels_in_training(self) -> list[str]:
        """The names of the kernels that compute in training, with the adapter that there is now."""
        fused = self.savings.fused and any(obstacle(layer) is None for layer in self.layers)
        last, head = self.norm.weight, self.lm_head
        used = {
            "rms_norm": fused or not (last.requires_grad or hasattr(last, "ds_id")),
            "rope": fused,
            "swiglu": fused,
            "cross_entropy": self.savings.logits and isinstance(head, Head) and not head.weight.requires_grad,
            "nf4": self.format is not None and self.format.name == "nf4",
        }
        return [name for name in self.kernels.names if used[name]]

    @property
    def fuses(self) -> bool:
        """Whether all layers are computed by :mod:`cbtrain.model.fused` in training, as they are now."""
        return self.savings.fused and all(obstacle(layer) is None for layer in self.layers)

    @property
    def kind(self) -> str:
        """The kind of device that computes, ``cpu`` or ``cuda``."""
        return self.device.type

    @property
    def backend(self) -> str:
        """The attention back-end in use. Raises UserError if the configured one cannot run here."""
        return choose_backend(self.attention, self.device, self.dtype, self.architecture.head_dim)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states."""
        return self.norm.weight.dtype

    @property
    def linears(self) -> dict[str, Linear]:
        """The layers' linears, adapted or not, by path (e.g. ``layers.0.self_attn.q_proj``)."""
        return {
            name.removesuffix(".base"): module
            for name, module in self.layers.named_modules(prefix="layers")
            if isinstance(module, Linear)
        }


def initialize(decoder: Decoder, seed: int) -> None:
    """Set random weights of a new model: normal with std 0.02, of residual outputs 0.02 / sqrt(2 · layers) (GPT-2)."""
    generator = torch.Generator().manual_seed(seed)
    narrow = (2 * decoder.architecture.layers) ** -0.5
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                parameter.normal_(0.0, 0.02 * (narrow if residual else 1.0), generator=generator)
