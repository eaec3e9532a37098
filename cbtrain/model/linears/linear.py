"""The interface of a linear map whose weight is held in some format."""

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
        """Copy ``weight [out_features, in_features]`` (any float dtype, on the final device) into this format, to
        compute in the dtype ``compute``."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """Return the weight ``[out_features, in_features]`` in its computing dtype, outside of autograd. Some formats
        make it anew."""

    @abstractmethod
    def dequantized(self) -> Tensor:
        """Return the weight as the forward pass uses it, fp32 ``[out_features, in_features]``."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return ``x W^T + bias`` in x's dtype, differentiable in ``x``."""

    @property
    @abstractmethod
    def weight_bytes(self) -> int:
        """Bytes of the weight in memory, scales included."""
