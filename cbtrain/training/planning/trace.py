"""One micro-batch on the meta device, with every allocation counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cbtrain.model.decoder import Decoder
from cbtrain.model.fused.layer import Group
from cbtrain.tokens.pack import Pack
from cbtrain.training.loss import token_losses
from cbtrain.training.memory.allocations import LiveStorages
from cbtrain.training.planning.static_memory import rounded

CUDA_GRANULE = 512
"""Bytes in which torch's CUDA allocator hands memory out."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Bytes at the peak of a forward and a backward pass: what the forward pass keeps, gradients of parameters, and
    temporaries. ``kept`` is all that the forward pass keeps, ``events`` are the allocations in order
    (:class:`LiveStorages`)."""

    activations: int
    gradients: int
    workspace: int
    kept: int
    events: list[int]

    @property
    def peak(self) -> int:
        return self.activations + self.gradients + self.workspace


def trace(
    decoder: Decoder, pack: Pack, *, accumulates: bool = False, granule: int = 1, groups: tuple[Group, ...] = ()
) -> Trace:
    """Return the memory of one forward and backward pass of ``decoder`` (on the meta device) on ``pack``; ``groups`` of
    its rows may have adapters of their own, if the decoder has none. With ``accumulates``, gradients of an earlier
    micro-batch exist from the start."""
    parameters = list(decoder.trainable_parameters().values())
    parameters += [
        tensor for group in groups for module in group.modules.values() for tensor in module.tensors().values()
    ]
    if decoder.adapter:
        decoder.adapter.prepare(0, pack.names, pack.cu_seqlens)
    watch = _Watch(parameters, granule, accumulates=accumulates)
    with watch.live:
        losses, loss_weights = token_losses(decoder, pack, groups)
        loss = (losses * loss_weights).sum()
        del losses, loss_weights
        watch.forward_ends()
        loss.backward()
        del loss
        watch.widen()
    watch.close()
    activations, gradients = watch.at_peak
    waiting = sum(4 * parameter.numel() for parameter in parameters) if accumulates else 0
    workspace = watch.live.peak - activations - gradients
    return Trace(activations, gradients + waiting, workspace, watch.kept, watch.live.events)


class _Watch:
    """Knows at each new peak how much of it is activations and how much new gradients. Gradients of bf16 parameters are
    turned into fp32 ones after the backward pass, one by one, as the engine does."""

    def __init__(self, parameters: list[nn.Parameter], granule: int, *, accumulates: bool) -> None:
        self.parameters, self.rounded, self.accumulates = parameters, rounded(parameters), accumulates
        self.live = LiveStorages(granule, self._note)
        self.kept = self.gradients = 0
        self.at_peak = (0, 0)
        self._wide: list[Tensor] = []
        for parameter in parameters:
            waits = accumulates and parameter.dtype == torch.float32
            parameter.grad = torch.empty_like(parameter) if waits else None
        self._hooks = [p.register_post_accumulate_grad_hook(self._grown) for p in parameters if p.grad is None]

    def forward_ends(self) -> None:
        self.live.mark()
        self.kept = self.live.marked
        # Of the forward pass's own peak, all that is not kept is there for a moment.
        self.at_peak = (min(self.kept, self.live.peak), 0)

    def widen(self) -> None:
        """Convert gradients of bf16 parameters to fp32, as the engine does in the backward pass."""
        for parameter in self.rounded:
            if parameter.grad is not None:
                wide = parameter.grad.float()
                if not self.accumulates:
                    self._wide.append(wide)
                    self.gradients += _bytes(wide)
                self.gradients -= _bytes(parameter.grad)
                parameter.grad = None

    def close(self) -> None:
        self._wide.clear()
        for hook in self._hooks:
            hook.remove()
        for parameter in self.parameters:
            parameter.grad = None

    def _grown(self, parameter: Tensor) -> None:
        self.gradients += _bytes(parameter)

    def _note(self) -> None:
        if self.kept:
            self.at_peak = (self.live.marked, self.gradients)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
