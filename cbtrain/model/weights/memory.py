"""Memory of a decoder's weights, counted from its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.linear import Linear


@dataclass(frozen=True, slots=True)
class WeightMemory:
    """Bytes held and numbers they stand for: of the layers' linears, and of the rest (embeddings, norms, head)."""

    linear_bytes: int
    linear_parameters: int
    other_bytes: int
    other_parameters: int

    @property
    def bytes(self) -> int:
        return self.linear_bytes + self.other_bytes

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    @property
    def bytes_per_parameter(self) -> float:
        return self.bytes / self.parameters

    @property
    def bytes_per_linear_parameter(self) -> float:
        return self.linear_bytes / self.linear_parameters


def weight_memory(decoder: Decoder) -> WeightMemory:
    """Count the storage behind the base's weights, tied ones once, adapters not, and on one rank its own share."""
    linears = decoder.linears.values()
    linear_bytes = sum(_share(linear, linear.weight_bytes) for linear in linears)
    linear_parameters = sum(linear.in_features * linear.out_features for linear in linears)
    counted = {id(p) for linear in linears for p in linear.parameters(recurse=False) if p is not linear.bias}
    base = decoder.adapter.base_parameters() if decoder.adapter else decoder.parameters()
    rest: dict[int, Tensor] = {id(p): p for p in base if id(p) not in counted}
    return WeightMemory(
        linear_bytes,
        linear_parameters,
        sum(getattr(p, "ds_tensor", p).numel() * p.element_size() for p in rest.values()),
        sum(getattr(p, "ds_numel", p.numel()) for p in rest.values()),
    )


def _share(linear: Linear, weight_bytes: int) -> int:
    """Return the bytes of this rank's share: DeepSpeed may have sharded the weight and left an empty tensor."""
    shares = [p.ds_tensor for p in linear.parameters(recurse=False) if hasattr(p, "ds_tensor") and p is not linear.bias]
    return shares[0].numel() * shares[0].element_size() if shares else weight_bytes
