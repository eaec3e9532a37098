"""One way of training, as far as memory and time depend on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from pydantic import BaseModel

from cbtrain.model.architecture import Architecture
from cbtrain.model.attention.packed import choose_backend
from cbtrain.model.config import LoraConfig
from cbtrain.model.fused.savings import Savings
from cbtrain.model.kernel_choice import Kernels, Setting, choose_kernels
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.methods import method_of


@dataclass(frozen=True, slots=True)
class Scenario:
    """``device`` is the kind that trains, ``cpu`` or ``cuda``, whichever this one is; ``activation_checkpointing`` a
    level for all layers, or one for each; ``attention`` the back-end that
    serves there. ``accumulates`` says that an optimizer step has several micro-batches a rank, so that gradients wait
    through forward passes; ``copies`` that the best parameters and a checkpoint on its way to the disk lie in the
    memory that trains, as on CPUs. ``zero_stage`` is None with the torch engine. ``kernels`` are for timing; memory is
    predicted for the operations that they replace, which take no less."""

    architecture: Architecture
    format: WeightFormat
    adapter: BaseModel
    optimizer: str = "adamw"
    activation_checkpointing: str | tuple[str, ...] = "none"
    device: str = "cpu"
    attention: str = "sdpa"
    accumulates: bool = False
    copies: bool = False
    zero_stage: int | None = None
    savings: Savings = field(default_factory=Savings)
    kernels: Kernels = field(default_factory=Kernels)
    world: int = 1

    @property
    def full(self) -> bool:
        """Whether the base's own weights are trained."""
        return method_of(self.adapter).trains_base

    @property
    def fused(self) -> bool:
        """Whether layers are computed by :mod:`cbtrain.model.fused`: as its ``obstacle`` says."""
        lora = self.adapter if isinstance(self.adapter, LoraConfig) else None
        return self.savings.fused and lora is not None and not (lora.dora or lora.dropout) and self.zero_stage != 3

    @property
    def compute(self) -> torch.dtype:
        return self.format.compute

    def bytes_of_scores(self, length: int) -> int:
        """Return the bytes that grow with the square of a document's ``length`` and that a layer keeps: PyTorch's
        attention keeps a mask for a document longer than ``sliding_window``, and where CUDA has no fused kernel the
        scores of every head (:func:`cbtrain.training.planning.attention._document`)."""
        a = self.architecture
        masked = a.sliding_window is not None and length > a.sliding_window
        fused = self.device != "cuda" or a.heads == a.kv_heads or not (masked or self.compute == torch.float32)
        if self.attention != "sdpa" or (fused and not masked):
            return 0
        return length * length * self.compute.itemsize * (masked + (0 if fused else 2 * a.heads))


def kernels_of(wanted: Setting, device: str) -> Kernels:
    """Return the kernels that would serve on ``device``: none on one that is not here. Raises UserError if one that is
    required cannot run."""
    here = torch.device(device).type == "cpu" or torch.cuda.is_available()
    return choose_kernels(wanted, torch.device(device)) if here else Kernels()


def attention_of(wanted: str, device: str, compute: torch.dtype, head_dim: int) -> str:
    """Return the back-end that would serve on ``device``. One that is not here is taken to have what its makers
    promise: kernels over packed documents for bf16."""
    if device == "cpu" or torch.cuda.is_available():
        return choose_backend(wanted, torch.device(device), compute, head_dim)
    if wanted != "auto":
        return wanted
    suited = compute == torch.bfloat16 and head_dim % 8 == 0 and head_dim <= 256
    return "torch-varlen" if suited else "sdpa"
