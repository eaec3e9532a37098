"""Cumulative sequence lengths of packed documents, on the host and on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class CuSeqlens:
    """Cumulative lengths ``[documents + 1]`` of the documents that lie end to end in a row, the first of them 0.

    ``host`` are integers, for loops over documents; :meth:`on` returns them as an int32 tensor, for varlen kernels.
    Keeping both means that nothing waits for a device to learn a length.
    """

    def __init__(self, cu_seqlens: Sequence[int]) -> None:
        self.host = tuple(cu_seqlens)
        self.max_seqlen = max((b - a for a, b in zip(self.host, self.host[1:], strict=False)), default=0)
        self._tensor: Tensor | None = None

    def on(self, device: torch.device) -> Tensor:
        """Return int32 ``[documents + 1]`` on ``device``: the same tensor object at every call, which cuDNN requires
        for causal attention if queries and keys share their documents."""
        if self._tensor is None or self._tensor.device != device:
            host = torch.tensor(self.host, dtype=torch.int32)
            self._tensor = host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
        return self._tensor
