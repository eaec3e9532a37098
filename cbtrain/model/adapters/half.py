"""Half fine-tuning, HFT (Hui et al. 2025, arXiv 2404.18466): full tuning of one half of the matrices, drawn anew for
each round (a stage of training, or a task), while the other half keeps what the base knows.

The draw is by category. Of every layer 2 of query, key, value and output are frozen, and 1 of the two norms; of gate,
up and down 2 in one half of the layers (rounded down) and 1 in the others. Biases go with their matrix. Embeddings,
head, the last norm, and norms of queries and keys are always trained.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cbtrain.model.adapters.full import FullAdapter
from cbtrain.model.decoder import Decoder
from cbtrain.model.method_settings import HalfConfig

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")


def draw_frozen(layers: int, seed: int, number: int) -> set[str]:
    """Return the paths of the modules that are frozen in the round ``number``, in a decoder of ``layers`` layers."""
    draw = random.Random(f"half fine-tuning, seed {seed}, round {number}")
    with_two = set(draw.sample(range(layers), layers // 2))
    frozen = set()
    for layer in range(layers):
        frozen |= {f"layers.{layer}.self_attn.{name}" for name in draw.sample(ATTENTION, 2)}
        frozen |= {f"layers.{layer}.mlp.{name}" for name in draw.sample(MLP, 2 if layer in with_two else 1)}
        frozen.add(f"layers.{layer}.{draw.choice(NORMS)}")
    return frozen


class HalfAdapter(FullAdapter):
    """Trains the decoder's own parameters but those of :attr:`frozen` modules, which have no gradient and no state of
    the optimizer. What is saved is a whole model."""

    def __init__(self, decoder: Decoder, config: HalfConfig, device: torch.device) -> None:
        super().__init__(decoder, config, device)
        self.config = config
        self.frozen: set[str] = set()

    def describe(self) -> str:
        return f"half of the matrices trained (HFT, round {self.config.round})"

    def initialize(self, seed: int) -> None:
        seed = seed if self.config.seed is None else self.config.seed
        self.frozen = draw_frozen(self.decoder.architecture.layers, seed, self.config.round)
        for name, parameter in self.decoder.named_parameters():
            parameter.requires_grad_(name.rpartition(".")[0] not in self.frozen)

    def save(
        self, folder: Path, *, base: str, metadata: Mapping[str, str], values: Mapping[str, Tensor] | None = None
    ) -> None:
        whole = None if values is None else {**self.parameters(), **values}
        super().save(folder, base=base, metadata=metadata, values=whole)
