"""A decoder on the meta device: no data, but the same code and tensor sizes as the real one in training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

from cbtrain.model.adapters.adapter import Adapter
from cbtrain.model.adapters.dropout import KeyedDropout
from cbtrain.model.adapters.linears_adapter import LinearsAdapter
from cbtrain.model.adapters.methods import attach
from cbtrain.model.attention.branches import Borders
from cbtrain.model.decoder import Attend, Decoder
from cbtrain.model.fused.obstacles import join_weights
from cbtrain.model.linears.dense import DenseLinear
from cbtrain.model.linears.linear import Linear
from cbtrain.model.linears.nf4 import BLOCK, NESTED_BLOCK
from cbtrain.model.methods import method_of
from cbtrain.training.planning.attention import stand_in
from cbtrain.training.planning.scenario import Scenario

META = torch.device("meta")


def meta_decoder(scenario: Scenario) -> Decoder:
    """Return a decoder on the meta device with the adapter of ``scenario``, in training mode."""
    decoder = meta_base(scenario)
    attach_meta(decoder, scenario.adapter)
    return decoder


def meta_base(scenario: Scenario) -> Decoder:
    """Return a decoder on the meta device without an adapter, in training mode."""
    weight_format = scenario.format
    linear: Any = DenseLinear
    if weight_format.name == "nf4":
        linear = partial(MetaNf4Linear, compute=weight_format.compute, nested=weight_format.double_quantization)
    with META:
        decoder = MetaDecoder(scenario, linear)
    decoder.to(scenario.compute)
    decoder.activation_checkpointing, decoder.savings = scenario.activation_checkpointing, scenario.savings
    return decoder.train()


def attach_meta(decoder: Decoder, settings: BaseModel) -> Adapter:
    """Give ``decoder`` an adapter on the meta device by the method of ``settings``, and return it."""
    adapter = attach(decoder, settings, META)
    if method_of(settings).trains_base:
        adapter.initialize(0)  # says which weights are trained
    if isinstance(adapter, LinearsAdapter) and adapter.dropout is not None:
        adapter.dropout = MetaDropout(adapter.dropout.rate, 0)
        for module in adapter.modules.values():
            module.dropout = adapter.dropout
    if decoder.savings.fused:
        join_weights(decoder.layers)
    return adapter


class MetaDecoder(Decoder):
    """Attends as the back-end of ``scenario`` would."""

    def __init__(self, scenario: Scenario, linear: Any) -> None:
        super().__init__(scenario.architecture, linear)
        self.scenario = scenario
        self.lm_head.kind = scenario.device

    @property
    def kind(self) -> str:
        return self.scenario.device

    def packed(self, cu_seqlens: Sequence[int], borders: Sequence[Borders] = ()) -> Attend:
        assert not borders, "a pair of answers is planned as one document"
        window = self.architecture.sliding_window
        return stand_in(self.scenario.attention, self.scenario.device, cu_seqlens, window)


class MetaNf4Linear(Linear):
    """Allocates the dense weight and the unpacked scales in both passes, as ``Nf4Linear`` does."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, compute: torch.dtype, nested: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.compute, self.nested = compute, nested
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None

    def load_weight(self, weight: Tensor, compute: torch.dtype) -> None:
        raise NotImplementedError("nothing is loaded on the meta device")

    def matrix(self) -> Tensor:
        """Return an empty weight in the computing dtype."""
        count = self.in_features * self.out_features
        scales = torch.empty(-(-count // BLOCK), device=META)
        weight = torch.empty(self.out_features, self.in_features, dtype=self.compute, device=META)
        del scales
        return weight

    def dequantized(self) -> Tensor:
        return self.matrix().float()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _MetaNf4Matmul.apply(x, self)
        return out

    @property
    def weight_bytes(self) -> int:
        count = self.in_features * self.out_features
        blocks = -(-count // BLOCK)
        scales = blocks + 4 * -(-blocks // NESTED_BLOCK) + 4 if self.nested else 4 * blocks
        return -(-count // 2) + scales


class _MetaNf4Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: MetaNf4Linear) -> Tensor:
        ctx.linear = linear
        return F.linear(x, linear.matrix(), linear.bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.linear.matrix(), None


class MetaDropout(KeyedDropout):
    """Dropout whose mask needs no generator, which the meta device lacks."""

    def _mask(self, name: str, path: str, tokens: int, x: Tensor) -> Tensor:
        return torch.rand(tokens, x.shape[-1], device=x.device) >= self.rate
