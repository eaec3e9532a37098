"""What all adapters of linears have in common: a module in the place of each linear that is adapted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from cbtrain.errors import UserError
from cbtrain.model.adapters.adapted_linear import AdaptedLinear
from cbtrain.model.adapters.adapter import Adapter
from cbtrain.model.adapters.dropout import KeyedDropout
from cbtrain.model.adapters.own_format import read_tensors, write_adapter
from cbtrain.model.decoder import Decoder
from cbtrain.model.methods import method_of

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
OTHER_BASE = "Is this adapter for another base model?"

OneLinear = TypeVar("OneLinear", bound=AdaptedLinear)


class LinearsAdapter(Adapter, Generic[OneLinear]):
    """Puts ``modules`` (by path) in the places of linears of ``decoder``. Its values come from :meth:`initialize` or
    :meth:`load`; its files are those of :mod:`cbtrain.model.adapters.own_format`."""

    dropout: KeyedDropout | None = None

    def __init__(self, decoder: Decoder, config: BaseModel, modules: Mapping[str, OneLinear]) -> None:
        self.decoder, self.config, self.modules = decoder, config, dict(modules)
        for path, module in self.modules.items():
            decoder.set_submodule(path, module)

    @property
    def in_places(self) -> dict[str, nn.Module]:
        """All modules that it puts into the decoder, by path."""
        return dict(self.modules)

    @property
    def files(self) -> dict[str, str]:
        """The parameter's name for each tensor of its file."""
        return {name: name for name in self.parameters()}

    def describe(self) -> str:
        return method_of(self.config).text

    def initialize(self, seed: int) -> None:
        if self.dropout is not None:
            self.dropout.seed = seed
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules.values():
            module.initialize(generator)

    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            f"{path}.{leaf}": parameter
            for path, module in self.modules.items()
            for leaf, parameter in module.tensors().items()
        }

    def base_parameters(self) -> list[nn.Parameter]:
        added = {id(parameter) for parameter in self.parameters().values()}
        return [parameter for parameter in self.decoder.parameters() if id(parameter) not in added]

    def changed(self) -> frozenset[str]:
        names = {f"{path}.weight" for path in self.in_places}
        for path, module in self.modules.items():
            names |= {f"{path}.bias"} if module.changes_bias and module.base.bias is not None else set()
        return frozenset(names)

    def effective_weight(self, name: str, weight: Tensor) -> Tensor:
        path, _, leaf = name.rpartition(".")
        module = self.modules[path]
        return module.effective_bias(weight) if leaf == "bias" else module.effective_weight(weight)

    def enable(self, enabled: bool) -> None:
        self.enabled = enabled
        for module in self.in_places.values():
            module.enabled = enabled  # type: ignore[assignment]

    def prepare(self, step: int, names: Sequence[str], cu_seqlens: Sequence[int]) -> None:
        if self.dropout is not None:
            self.dropout.prepare(step, names, cu_seqlens)

    def save(
        self, folder: Path, *, base: str, metadata: Mapping[str, str], values: Mapping[str, Tensor] | None = None
    ) -> None:
        parameters = self.parameters() if values is None else values
        tensors = {name: parameters[name].detach().float().clone() for name in self.parameters()}
        write_adapter(folder, self.config, tensors, base=base, metadata=metadata)

    def read(self, folder: Path) -> dict[str, Tensor]:
        return read_tensors(folder)[0]

    @torch.no_grad()
    def load(self, tensors: Iterable[tuple[str, Tensor]], where: Path) -> None:
        unused, parameters = dict(tensors), self.parameters()
        first: dict[int, tuple[str, Tensor]] = {}  # of parameters that are under two names in the file
        for name, parameter in ((file, parameters[name]) for file, name in self.files.items()):
            tensor = unused.pop(name, None)
            if tensor is None or tensor.shape != parameter.shape:
                actual = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
                problem = f"tensor {name!r} {actual}; shape {tuple(parameter.shape)} is needed"
                raise UserError(problem, where=where, hint=self.hint_for(name, tensor, parameter))
            if tensor.dtype not in FLOATS:
                kind = str(tensor.dtype).removeprefix("torch.")
                raise UserError(f"tensor {name!r} is stored as {kind}", where=where, hint="Save it in fp32 or bf16.")
            if parameter.is_meta:  # it is only asked whether the tensors fit
                continue
            if not bool(torch.isfinite(tensor).all()):
                raise UserError(f"tensor {name!r} holds NaN or infinity", where=where, hint="Train it again.")
            twin, values = first.setdefault(id(parameter), (name, tensor))
            if twin != name and not torch.equal(values.float(), tensor.float()):
                problem = f"tensors {twin!r} and {name!r} differ, but its settings tie them"
                raise UserError(problem, where=where, hint="Set ensure_weight_tying to false if both are meant.")
            parameter.copy_(tensor)
        if unused:
            name, tensor = next(iter(unused.items()))
            problem = f"tensor {name!r} does not belong to this model"
            raise UserError(problem, where=where, hint=self.hint_for(name, tensor, self.decoder.embed_tokens.weight))

    def hint_for(self, name: str, tensor: Tensor | None, wanted: Tensor) -> str:
        """Return the most probable cause of a ``tensor`` (None: it is missing) that does not fit ``wanted``."""
        return OTHER_BASE

    def remove(self) -> None:
        for path, module in self.in_places.items():
            self.decoder.set_submodule(path, module.base)  # type: ignore[arg-type]
        self.decoder.adapter = None

    def attach(self) -> None:
        """Attach it again after :meth:`remove`. Raises RuntimeError if the decoder has an adapter."""
        if self.decoder.adapter is not None:
            raise RuntimeError("the decoder has an adapter")
        for path, module in self.in_places.items():
            self.decoder.set_submodule(path, module)
            if module.training != self.decoder.training:  # as it was when it was removed
                module.train(self.decoder.training)
        self.decoder.adapter = self

    def detach(self) -> dict[str, nn.Module]:
        self.enable(True)
        self.remove()
        return self.in_places
