"""The formats of frozen weights, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from cbtrain.errors import UserError, nearest
from cbtrain.model.config import ModelConfig
from cbtrain.model.linears.dense import DenseLinear
from cbtrain.model.linears.linear import Linear
from cbtrain.model.linears.nf4 import Nf4Linear, require_bitsandbytes

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FORMATS = (*DTYPES, "nf4")


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """The format ``name`` in which the layers' linears are held in memory, and the dtype ``compute`` of activations and
    of all other weights. ``double_quantization`` is for NF4 only."""

    name: str
    compute: torch.dtype
    double_quantization: bool = True

    def linear(self) -> Callable[..., Linear]:
        """Return a function that makes a linear of this format: ``(in_features, out_features, *, bias)``."""
        if self.name != "nf4":
            return DenseLinear
        return partial(Nf4Linear, double_quantization=self.double_quantization)

    def __str__(self) -> str:
        if self.name != "nf4":
            return self.name
        compute = next(name for name, dtype in DTYPES.items() if dtype == self.compute)
        return f"nf4, {'double' if self.double_quantization else 'single'} quantization, computing in {compute}"

    @classmethod
    def from_text(cls, text: str | None) -> WeightFormat | None:
        """Return the format whose ``str`` is ``text``, or None."""
        weight_formats = [cls(name, dtype) for name, dtype in DTYPES.items()]
        weight_formats += [cls("nf4", dtype, double) for dtype in DTYPES.values() for double in (True, False)]
        return next((weight_format for weight_format in weight_formats if str(weight_format) == text), None)


def choose_weight_format(
    name: str, device: str | torch.device, *, compute: str = "auto", double_quantization: bool = True
) -> WeightFormat:
    """Return the format ``name`` (``auto``: bf16 on CUDA, fp32 elsewhere) for weights on ``device``.

    ``compute`` ``auto`` is the weights' own dtype; for NF4 it is bf16 on CUDA and fp32 elsewhere. Raises UserError on
    an unknown name, on another computing dtype than that of dense weights, and if bitsandbytes is needed and missing.
    """
    usual = "bf16" if torch.device(device).type == "cuda" else "fp32"
    name = usual if name == "auto" else name
    if name not in FORMATS:
        raise UserError(
            f"unknown weight format {name!r}", where="model.weights", hint=nearest(name, ("auto", *FORMATS))
        )
    if compute == "auto":
        compute = usual if name == "nf4" else name
    if compute not in DTYPES:
        raise UserError(f"unknown dtype {compute!r}", where="model.compute", hint=nearest(compute, ("auto", *DTYPES)))
    if name == "nf4":
        require_bitsandbytes()
    if name != "nf4" and compute != name:
        hint = "Set model.compute to auto; it is for nf4."
        raise UserError(f"{name} weights compute in {name}, not in {compute}", where="model.compute", hint=hint)
    return WeightFormat(name, DTYPES[compute], double_quantization)


def configured_format(config: ModelConfig, device: str | torch.device) -> WeightFormat:
    """Return the format that ``config`` asks for on ``device``. Raises UserError as :func:`choose_weight_format`."""
    return choose_weight_format(
        config.weights, device, compute=config.compute, double_quantization=config.double_quantization
    )


def faster_dtype(weight_format: WeightFormat, device: str | torch.device) -> str | None:
    """Return a sentence about a dtype in which this CPU is faster than in fp32, or None: one with products of bf16 in
    hardware. On others bf16 is slower."""
    if torch.device(device).type != "cpu" or weight_format.compute != torch.float32:
        return None
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not (has.get("amx_bf16") or has.get("avx512_bf16")):
        return None
    change = "model.compute=bf16" if weight_format.name == "nf4" else "model.weights=bf16"
    return f"this CPU multiplies bf16 faster than fp32: {change} (with fewer digits) is worth a try"
