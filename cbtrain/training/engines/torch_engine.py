"""The plain PyTorch engine: one process, or several that sum their gradients.

Adapter gradients are small (some 40 million numbers for a 7B model), so one all-reduce a step serves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cbtrain.training.config import TrainingConfig


class TorchEngine:
    """AdamW over ``parameters``. ``rank`` and ``world`` are 0 and 1 without a process group."""

    def __init__(self, parameters: Sequence[nn.Parameter], config: TrainingConfig) -> None:
        self.parameters, self.clip_norm = list(parameters), config.clip_norm
        self.distributed = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.distributed else 0
        self.world = dist.get_world_size() if self.distributed else 1
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, learning_rate: float) -> Tensor:
        """Sum gradients over ranks, clip, update; returns the gradient norm before clipping (0-d, on the device).

        A non-finite norm leaves parameters and optimizer state as they are.
        """
        self._sum_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        if bool(torch.isfinite(norm)):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def sum(self, value: Tensor) -> Tensor:
        """``value`` summed over ranks (in place)."""
        if self.distributed:
            dist.all_reduce(value)
        return value

    def _sum_gradients(self) -> None:
        if not self.distributed:
            return
        # A rank whose packs had nothing supervised has no gradients, and must still take part.
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for parameter, part in zip(self.parameters, flat.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter)
