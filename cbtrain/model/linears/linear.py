"""What stands between the decoder and the way its weights are held in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Linear(nn.Module, ABC):
    """A linear map ``[…, in_features] -> […, out_features]`` whose weight is held in some format.

    Adapters, merging and loading know this interface only, so that a new format is one new class.
    """

    in_features: int
    out_features: int
    bias: nn.Parameter | None

    @abstractmethod
    def load_weight(self, weight: Tensor, compute: torch.dtype) -> None:
        """Hold a copy of ``weight [out_features, in_features]`` (any float dtype, on the final device) from now on, and
        compute in ``compute``."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The weight as it takes part in the forward pass, fp32 ``[out_features, in_features]``."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``x W^T + bias``, in x's dtype. Differentiable in ``x``."""

    @property
    @abstractmethod
    def weight_bytes(self) -> int:
        """Bytes that the weight takes in memory, scales included."""
