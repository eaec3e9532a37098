"""The LoRA family as one adapter: adapted linears, and embeddings or head that are trained as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cbtrain.errors import UserError
from cbtrain.model.adapters.dropout import KeyedDropout
from cbtrain.model.adapters.linears_adapter import OTHER_BASE, LinearsAdapter
from cbtrain.model.adapters.lora_linear import DoraLinear, LoraLinear
from cbtrain.model.adapters.peft_format import MERGE_FIRST, PREFIX, WEIGHTS, peft_config
from cbtrain.model.adapters.trained_modules import TrainedEmbedding, TrainedHead, TrainedModule, copy_of
from cbtrain.model.config import LoraConfig
from cbtrain.model.decoder import Decoder
from cbtrain.model.path_patterns import matches
from cbtrain.model.weights.saving import file_name, save_tensors


class LoraAdapter(LinearsAdapter[LoraLinear]):
    """LoRA, rsLoRA or DoRA on the linears that ``config`` names. It is attached to the decoder by the constructor;
    its values come from :meth:`initialize` or :meth:`load`."""

    config: LoraConfig

    def __init__(self, decoder: Decoder, config: LoraConfig, device: torch.device) -> None:
        self.dropout = KeyedDropout(config.dropout, seed=0)
        make, modules = DoraLinear if config.dora else LoraLinear, dict[str, LoraLinear]()
        for path, base in decoder.linears.items():
            if is_target(path, config.targets, config.layers):
                rank = int(_pattern(config.rank_pattern, path, config.rank))
                alpha = _pattern(config.alpha_pattern, path, config.alpha)
                scale = alpha / (math.sqrt(rank) if config.rslora else rank)
                modules[path] = make(base, path, rank, scale, self.dropout, device)
        super().__init__(decoder, config, modules)
        self.tied = decoder.architecture.tied_embeddings
        self.trained: dict[str, TrainedModule] = {}
        self._train_whole_modules(decoder, device)
        # Found once: under ZeRO-3 to look at a parameter is to fetch it from every rank, which a thread that writes a
        # checkpoint must not do.
        self._files = self._file_names()

    @property
    def in_places(self) -> dict[str, nn.Module]:
        return {**self.modules, **self.trained}

    @property
    def files(self) -> dict[str, str]:
        return self._files

    def _train_whole_modules(self, decoder: Decoder, device: torch.device) -> None:
        wanted = set(self.config.modules_to_save)
        tied = self.tied and self.config.ensure_weight_tying
        if tied and wanted:
            wanted = {"embed_tokens", "lm_head"}
        shared: nn.Parameter | None = None
        if "embed_tokens" in wanted:
            shared = copy_of(decoder.embed_tokens.weight, device)
            self.trained["embed_tokens"] = TrainedEmbedding(decoder.embed_tokens, shared)
        if "lm_head" in wanted:
            weight = shared if tied and shared is not None else copy_of(decoder.lm_head.weight, device)
            self.trained["lm_head"] = TrainedHead(decoder.lm_head, weight)
        for name, module in self.trained.items():
            setattr(decoder, name, module)

    def describe(self) -> str:
        method = "DoRA" if self.config.dora else "rsLoRA" if self.config.rslora else "LoRA"
        return f"{method}, rank {self.config.rank}, alpha {self.config.alpha:g}"

    def parameters(self) -> dict[str, nn.Parameter]:
        parameters = super().parameters()
        for name, module in self.trained.items():
            if not any(module.weight is listed for listed in parameters.values()):
                parameters[f"{name}.weight"] = module.weight
        return parameters

    def effective_weight(self, name: str, weight: Tensor) -> Tensor:
        trained = self.trained.get(name.removesuffix(".weight"))
        return super().effective_weight(name, weight) if trained is None else trained.weight.detach()

    def save(
        self, folder: Path, *, base: str, metadata: Mapping[str, str], values: Mapping[str, Tensor] | None = None
    ) -> None:
        (folder / "adapter_config.json").write_text(peft_config(self.config, base=base, tied=self.tied))
        parameters = self.parameters() if values is None else values
        tensors = {file: parameters[name].detach().float().clone() for file, name in self._files.items()}
        save_tensors(tensors, folder / WEIGHTS, metadata)

    def read(self, folder: Path) -> dict[str, Tensor]:
        tensors = load_file(folder / WEIGHTS)
        return {name: tensors[file] for file, name in self._files.items()}

    def hint_for(self, name: str, tensor: Tensor | None, wanted: Tensor) -> str:
        return _why(name, tensor, wanted)

    def _file_names(self) -> dict[str, str]:
        """Return the parameter's name for each tensor of the PEFT file. A tied tensor has two names there, as ``peft``
        writes it."""
        names = {id(parameter): name for name, parameter in self.parameters().items()}
        parameter_names = {
            f"{PREFIX}model.{path}.{leaf}": f"{path}.{leaf}"
            for path, module in self.modules.items()
            for leaf in module.tensors()
        }
        return parameter_names | {
            PREFIX + file_name(f"{n}.weight"): names[id(m.weight)] for n, m in self.trained.items()
        }


def _why(name: str, tensor: Tensor | None, wanted: Tensor) -> str:
    """Return a hint with the most probable cause of a tensor that does not fit."""
    if tensor is None or not name.endswith(("embed_tokens.weight", "lm_head.weight")):
        return OTHER_BASE
    if tensor.shape[0] != wanted.shape[0]:
        rows = f"{tensor.shape[0]} tokens instead of the base's {wanted.shape[0]}"
        return f"The vocabulary was resized to {rows}. {MERGE_FIRST}"
    return f"peft saved these weights although modules_to_save does not name them. {MERGE_FIRST}"


@runtime_checkable
class Targeted(Protocol):
    """Settings that say which linears are adapted."""

    targets: list[str]
    layers: list[int] | None


def check_targets(config: object, decoder: Decoder) -> None:
    """Raise UserError on a target, a layer or a pattern of ``config``, settings of a method, that means nothing in
    ``decoder``: a typing error, mostly."""
    if not isinstance(config, Targeted):
        return
    layers, section = decoder.architecture.layers, "lora" if isinstance(config, LoraConfig) else "options"
    hint = f"The layers are 0 to {layers - 1}."
    for layer in config.layers or ():
        if not 0 <= layer < layers:
            raise UserError(f"layer {layer} is not in this model", where=f"{section}.layers", hint=hint)
    adapted = [path for path in decoder.linears if is_target(path, config.targets, config.layers)]
    for target in config.targets:
        if not any(is_target(path, [target], config.layers) for path in adapted):
            raise UserError(f"target {target!r} matches no linear of this model", where=f"{section}.targets", hint=hint)
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, key, ()):
            if not any(_matches(pattern, path) for path in adapted):
                problem = f"pattern {pattern!r} matches no adapted linear"
                raise UserError(
                    problem, where=f"{section}.{key}", hint="It must match the end of a path, or all of it."
                )


def _matches(pattern: str, path: str) -> bool:
    return matches(pattern, f"model.{path}")


def is_target(path: str, targets: Sequence[str], layers: Sequence[int] | None) -> bool:
    """Return whether the linear at ``path`` is one of ``targets``, in these ``layers`` or in all."""
    if layers is not None and int(path.split(".")[1]) not in layers:
        return False
    return any(path == target or path.endswith(f".{target}") for target in targets)


def _pattern(patterns: Mapping[str, float], path: str, default: float) -> float:
    """Return the value of the first pattern that matches the end of ``path``, as ``peft`` looks it up."""
    for pattern, value in patterns.items():
        if _matches(pattern, path):
            return value
    return default
