"""A linear of the decoder whose output an adapter changes."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from cbtrain.model.adapters.adapter import AdaptedModule
from cbtrain.model.linears.linear import Linear


class AdaptedLinear(AdaptedModule):
    """Stands in the place of the frozen ``base``, at ``path`` in the decoder (``layers.0.mlp.up_proj``). ``enabled``
    switches the adapter off without touching weights."""

    base: Linear

    changes_bias: ClassVar[bool] = False
    """Whether :meth:`effective_bias` is another one than the base's."""

    def __init__(self, base: Linear, path: str) -> None:
        super().__init__()
        self.base, self.path, self.enabled = base, path, True

    @abstractmethod
    def initialize(self, generator: torch.Generator) -> None:
        """Set the parameters for the start of training: the output is still the base's."""

    @abstractmethod
    def tensors(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by their names in files, which follow the path."""

    def effective_weight(self, weight: Tensor) -> Tensor:
        """Return the base's ``weight [out, in]`` with the adapter applied, fp32. Raises NotImplementedError of methods
        that cannot merge."""
        raise NotImplementedError

    def effective_bias(self, bias: Tensor) -> Tensor:
        """Return the base's ``bias [out]`` with the adapter applied, fp32."""
        return bias.float()

    def settings(self) -> str:
        return ""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        return self.adapt(x, out) if self.enabled else out
