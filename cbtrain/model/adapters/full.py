"""All weights trained: no adapter beside the base but other weights in its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from cbtrain.errors import UserError
from cbtrain.model.adapters.adapter import Adapter
from cbtrain.model.config import FullConfig
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.formats import weight_format
from cbtrain.model.weights.saving import ShardWriter, file_name

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "*.jinja", "generation_config.json")


class FullAdapter(Adapter):
    """Trains the decoder's own parameters, in fp32: a step on bf16 weights rounds most small updates away.

    Loaded beside a base it keeps both sets of weights and changes them over, so that base and tuned model are two arms
    of one decoder as with any other method.
    """

    can_merge: ClassVar[bool] = True

    def __init__(self, decoder: Decoder, config: FullConfig, device: torch.device) -> None:
        if decoder.format is not None and decoder.format.name == "nf4":
            fix = "Set model.weights to fp32 or bf16, or train with method lora."
            raise UserError("method full needs fp32 or bf16 weights, not nf4", where="model.weights", fix=fix)
        self.decoder, self.config = decoder, config
        self._other: dict[str, Tensor] = {}

    def initialize(self, seed: int) -> None:
        for parameter in self.decoder.parameters():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        self.decoder.format = weight_format("fp32", self.decoder.device)

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.decoder.named_parameters())

    def changed(self) -> frozenset[str]:
        return frozenset(self.parameters())

    def effective_weight(self, name: str, weight: Tensor) -> Tensor:
        return self.parameters()[name].detach().float()

    def enable(self, enabled: bool) -> None:
        if not self._other:
            raise RuntimeError("the base's weights are gone: load the tuned ones beside them with load_adapter")
        self.enabled = enabled
        for name, parameter in self.parameters().items():
            parameter.data, self._other[name] = self._other[name], parameter.data

    def save(self, folder: Path, *, base: str, metadata: Mapping[str, str]) -> None:
        for pattern in TOKENIZER_FILES if Path(base).is_dir() else ():
            for file in Path(base).glob(pattern):
                shutil.copyfile(file, folder / file.name)
        (folder / "config.json").write_text(json.dumps({**self.decoder.source, "dtype": "float32"}, indent=2) + "\n")
        writer = ShardWriter(folder, metadata=metadata)
        for name, parameter in self.parameters().items():
            writer.add(file_name(name), parameter)
        writer.close()

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], where: Path) -> None:
        left = dict(tensors)
        for name, parameter in self.parameters().items():
            tensor = left.pop(file_name(name), None)
            if tensor is None or tensor.shape != parameter.shape:
                problem = f"weight {name!r} is {'missing' if tensor is None else f'of shape {tuple(tensor.shape)}'}"
                raise UserError(problem, where=where, fix="Is this a tuned model of another base?")
            self._other[name] = parameter.data
            parameter.data = tensor.to(parameter.device, parameter.dtype, copy=True)
        if set(left) - {"lm_head.weight"}:
            raise UserError(f"weight {next(iter(left))!r} has no place in this model", where=where)
