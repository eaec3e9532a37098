"""Train all weights: the result replaces the base's weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from cbtrain.errors import UserError
from cbtrain.model.adapters.adapter import Adapter
from cbtrain.model.decoder import Decoder
from cbtrain.model.weights.card import copy_beside_weights, write_card
from cbtrain.model.weights.checking import read_weights
from cbtrain.model.weights.saving import ShardWriter, file_name

TRAINED = "trained"
"""In the metadata of its weights: what of them was trained, in words."""


class FullAdapter(Adapter):
    """Trains the decoder's own parameters. If these are bf16, the engine steps on fp32 master weights, since a
    step on bf16 weights rounds most small updates away, and saves the masters.

    Loaded into a base it keeps both sets of weights and swaps them, so that base and tuned model are two arms of one
    decoder as with any other method.
    """

    def __init__(self, decoder: Decoder, config: BaseModel, device: torch.device) -> None:
        self.decoder = decoder
        self._other: dict[str, Tensor] = {}

    def describe(self) -> str:
        return self.metadata.get(TRAINED, "all weights trained")

    def initialize(self, seed: int) -> None:
        self.decoder.requires_grad_(True)

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.decoder.named_parameters())

    def base_parameters(self) -> list[nn.Parameter]:
        return list(self.decoder.parameters())

    def changed(self) -> frozenset[str]:
        return frozenset(self.parameters())

    def effective_weight(self, name: str, weight: Tensor) -> Tensor:
        return self.parameters()[name].detach().float()

    def enable(self, enabled: bool) -> None:
        if enabled == self.enabled:
            return
        if not self._other:
            raise RuntimeError(
                "the base's weights are gone: load the base again, then the tuned weights with load_adapter"
            )
        self.enabled = enabled
        parameters = self.parameters()
        for name in self._other:
            parameters[name].data, self._other[name] = self._other[name], parameters[name].data

    @property
    def has_base(self) -> bool:
        """Whether it holds the base's weights beside the tuned ones, so that it can be switched off."""
        return bool(self._other)

    def hold_base(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Keep of ``tensors``, the base's weights by name, those in whose place others were trained, until
        :meth:`drop_base`."""
        parameters = self.parameters()
        for name, tensor in tensors:
            if (parameter := parameters[name]).requires_grad:
                self._other[name] = tensor.to(parameter.device, parameter.dtype, copy=True)

    def drop_base(self) -> None:
        self.enable(True)
        self._other.clear()

    def save(
        self, folder: Path, *, base: str, metadata: Mapping[str, str], values: Mapping[str, Tensor] | None = None
    ) -> None:
        # What else is in the base's folder makes the tuned one a whole model: tokenizer, template, licence.
        if self.decoder.folder is not None:
            copy_beside_weights(self.decoder.folder, folder)
        (folder / "config.json").write_text(json.dumps({**self.decoder.source, "dtype": "float32"}, indent=2) + "\n")
        writer = ShardWriter(folder, metadata={**metadata, TRAINED: self.describe()})
        for name, parameter in (self.parameters() if values is None else values).items():
            writer.add(file_name(name), parameter.detach().float())
        writer.close()
        name, text = f"{Path(base).name}, fine-tuned", f"`{base}`, {self.describe()}"
        write_card(folder, base=base, name=name, text=text, tags=["cbtrain", "fine-tuned"])

    def read(self, folder: Path) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in read_weights(folder, self.decoder.architecture)}

    @torch.no_grad()
    def load(self, tensors: Iterable[tuple[str, Tensor]], where: Path) -> None:
        parameters = self.parameters()
        for name, tensor in tensors:
            parameter = parameters[name]
            if tensor.shape != parameter.shape:
                problem = f"weight {name!r} has shape {tuple(tensor.shape)}, but in the base {tuple(parameter.shape)}"
                raise UserError(problem, where=where, hint="Is this a tuned model of another base?")
            self._other[name] = parameter.data
            parameter.data = tensor.to(parameter.device, parameter.dtype, copy=True)

    def remove(self) -> None:
        if not self._other and any(parameter.requires_grad for parameter in self.decoder.parameters()):
            raise RuntimeError("the base's weights are gone: load the base again")
        if not self.enabled:
            self.enable(True)
        for name, parameter in self.parameters().items():
            if name in self._other:
                parameter.data = self._other.pop(name)
        self.decoder.requires_grad_(False)
        self.decoder.adapter = None

    def detach(self) -> dict[str, nn.Module]:
        if not self._other:
            raise RuntimeError("the base's weights are gone: load the base again, then the tuned weights")
        self.enable(True)
        # What a copy would hold of the base, by identity as deepcopy looks it up, is replaced by the tuned weights.
        tuned = {id(p): nn.Parameter(p.data, requires_grad=False) for p in self.parameters().values()}
        modules = {
            path: copy.deepcopy(module, memo=tuned)
            for path, module in self.decoder.named_modules()
            if next(module.parameters(recurse=False), None) is not None
        }
        self.remove()
        return modules
