"""Copies of embeddings and head that are trained as a whole with an adapter: PEFT's ``modules_to_save``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtrain.model.head import Head, in_stretches


class TrainedEmbedding(nn.Module):
    """Looks up its own ``weight [vocabulary, hidden]`` (fp32), or the base's while it is not ``enabled``."""

    def __init__(self, base: nn.Embedding, weight: nn.Parameter) -> None:
        super().__init__()
        self.base, self.weight, self.enabled = base, weight, True

    def forward(self, ids: Tensor) -> Tensor:
        if not self.enabled:
            out: Tensor = self.base(ids)
            return out
        return F.embedding(ids, self.weight).to(self.base.weight.dtype)


class TrainedHead(nn.Module):
    """Projects with its own ``weight [vocabulary, hidden]`` in fp32, or as the base while it is not ``enabled``."""

    def __init__(self, base: Head, weight: nn.Parameter) -> None:
        super().__init__()
        self.base, self.weight, self.enabled = base, weight, True

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.enabled:
            out: Tensor = self.base(hidden)
            return out
        return F.linear(hidden.to(self.weight.dtype), self.weight)

    def token_losses(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return :meth:`cbtrain.model.head.Head.token_losses` of this head."""
        return in_stretches(self, hidden, labels, self.base.rows_at_once(hidden))


TrainedModule = TrainedEmbedding | TrainedHead


def copy_of(weight: Tensor, device: torch.device) -> nn.Parameter:
    """Return a trainable fp32 copy of ``weight``; uninitialized if ``weight`` is on the meta device."""
    if weight.is_meta:
        return nn.Parameter(torch.empty(weight.shape, device=device))
    return nn.Parameter(weight.detach().to(device, torch.float32, copy=True))
