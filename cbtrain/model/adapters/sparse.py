"""Sparse deltas: a few weights of each linear are trained, at places that are drawn once or chosen anew.

With places that are drawn once it is a fixed random mask, as PEFT's SHiRA; else SpIEL (Ansell et al. 2024, arXiv
2401.16405), :mod:`.sparse_training`. The places lie beside the values in ``adapter.safetensors``, as ``PATH.indices``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.model.adapters.linears_adapter import LinearsAdapter
from cbtrain.model.adapters.lora import is_target
from cbtrain.model.adapters.own_format import write_adapter
from cbtrain.model.adapters.own_training import OwnTraining
from cbtrain.model.adapters.sparse_gradients import GradientTraining
from cbtrain.model.adapters.sparse_linear import SparseLinear
from cbtrain.model.adapters.sparse_momentum import MomentumTraining
from cbtrain.model.adapters.sparse_training import SparseTraining
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.linear import Linear
from cbtrain.model.method_settings import SparseConfig

INDICES = ".indices"

WORDS = {
    "none": "at random places",
    "accumulated-gradients": "chosen by their gradients (SpIEL-AG)",
    "momentum": "chosen by the optimizer's accumulators (SpIEL-MA)",
}


class SparseAdapter(LinearsAdapter[SparseLinear]):
    """Sparse deltas on the linears that ``config`` names. Raises UserError if it asks for more weights than there
    are."""

    config: SparseConfig
    training: SparseTraining | None = None

    def __init__(self, decoder: Decoder, config: SparseConfig, device: torch.device) -> None:
        linears = {
            path: base for path, base in decoder.linears.items() if is_target(path, config.targets, config.layers)
        }
        rounds = config.has("rounding")
        modules = {
            path: SparseLinear(linears[path], path, count, device, rounds=rounds)
            for path, count in shared_out(config, linears).items()
        }
        super().__init__(decoder, config, modules)

    def describe(self) -> str:
        number = sum(len(module.values) for module in self.modules.values())
        where = WORDS[self.config.selection]
        if self.training is not None and self.training.updates <= self.config.collect:
            where = "at random places: training ended before the first selection"
        return f"sparse deltas of {number:,} weights {where}"

    def fixed(self) -> dict[str, Tensor]:
        return {path + INDICES: module.indices for path, module in self.modules.items()}

    def own_training(self, rate: float, betas: tuple[float, float], decay: float) -> OwnTraining | None:
        if self.config.selection == "none":
            return None
        if self.config.selection == "momentum":
            self.training = MomentumTraining(self.modules, self.config, rate, decay)
        else:
            self.training = GradientTraining(self.modules, self.config, rate, betas, decay)
        return self.training

    @property
    def dense_products(self) -> int:
        # The gradient of the whole weight; beside bf16 also the products with D, forward and back.
        return sum(
            module.shape[0] * module.shape[1] * (1 if module.rounds or self.decoder.dtype == torch.float32 else 3)
            for module in self.modules.values()
        )

    def save(
        self, folder: Path, *, base: str, metadata: Mapping[str, str], values: Mapping[str, Tensor] | None = None
    ) -> None:
        everything: dict[str, Tensor] = {**self.parameters(), **self.fixed()}
        chosen = everything if values is None else values
        tensors = {name: chosen[name].detach().clone() for name in everything}
        floats = {name: tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point()}
        write_adapter(folder, self.config, {**tensors, **floats}, base=base, metadata=metadata)

    @torch.no_grad()
    def load(self, tensors: Iterable[tuple[str, Tensor]], where: Path) -> None:
        rest = dict(tensors)
        for path, module in self.modules.items():
            name = path + INDICES
            found = rest.pop(name, None)
            if problem := _unusable(found, module):
                hint = self.hint_for(name, found, module.indices)
                raise UserError(f"tensor {name!r} {problem}", where=where, hint=hint)
            if not module.indices.is_meta:
                assert found is not None
                module.indices.copy_(found)
        super().load(rest.items(), where)


def shared_out(config: SparseConfig, linears: Mapping[str, Linear]) -> dict[str, int]:
    """Return how many weights of each of ``linears`` are trained: shares of all by its size, rounded down, at least 1.
    Raises UserError if it is more than they have."""
    sizes = {path: linear.out_features * linear.in_features for path, linear in linears.items()}
    wanted, key, whole = config.parameters, "parameters", sum(sizes.values())
    if wanted is None:
        key, wanted = "rank", sum(config.rank * (b.in_features + b.out_features) for b in linears.values())
    if wanted > whole:
        problem = f"{wanted:,} weights are to be trained, and the targets have {whole:,}"
        raise UserError(problem, where=f"options.{key}", hint=f"Lower {key}, name more targets, or take method full.")
    return {path: max(1, wanted * size // whole) for path, size in sizes.items()}


def _unusable(found: Tensor | None, module: SparseLinear) -> str | None:
    """Return what is wrong with the places ``found`` in a file, or None."""
    if found is None or found.shape != module.indices.shape:
        actual = "is missing" if found is None else f"has shape {tuple(found.shape)}"
        return f"{actual}; shape {tuple(module.indices.shape)} is needed"
    if found.dtype != torch.int32:
        return f"is stored as {str(found.dtype).removeprefix('torch.')}, not int32"
    size = module.shape[0] * module.shape[1]
    if len(found) and (int(found.min()) < 0 or int(found.max()) >= size):
        return f"names places outside of a weight with {size:,}"
    if len(found.unique()) < len(found):
        return "names a place twice"
    return None
