"""The interface behind which gradients are summed over ranks and turned into steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cbtrain.model.adapters.own_training import OwnTraining
from cbtrain.model.decoder import Decoder
from cbtrain.tokens.pack import Pack
from cbtrain.training import distributed
from cbtrain.training.config import StageConfig
from cbtrain.training.objectives.objective import Objective, Terms, objective_of
from cbtrain.training.objectives.reference import base_answers, known_reference

State = dict[str, Tensor]
"""Tensors by name, whole (not a rank's share of them), on the CPU."""


@dataclass(frozen=True, slots=True)
class StaticMemory:
    """Memory that this rank holds between steps, besides the base's weights. ``gradients`` are those of a step."""

    adapters: int
    gradients: int
    optimizer: int


class TrainingEngine(ABC):
    """One optimizer step is: for each micro-batch :meth:`token_losses` and :meth:`backward`, then :meth:`step`.

    ``lockstep`` says that every rank must run every micro-batch, because ranks exchange tensors inside it.
    """

    lockstep: bool = False

    live: dict[str, nn.Parameter]
    """The trained parameters by name, as they are in the decoder."""

    own: OwnTraining | None = None
    """What the method does in training besides gradients."""

    def __init__(self, decoder: Decoder, config: StageConfig) -> None:
        self.decoder, self.config = decoder, config
        self.objective: Objective = objective_of(config)
        self.rank, self.world = distributed.rank(), distributed.world()
        self.forward_context: Callable[[], AbstractContextManager[None]] = nullcontext
        """Context of each forward pass: counts memory now and then."""

    @abstractmethod
    def token_losses(self, pack: Pack) -> tuple[Tensor, Tensor]:
        """Return :func:`cbtrain.training.loss.token_losses`, computed inside the engine."""

    def terms(self, pack: Pack) -> Terms:
        """Return the terms of ``pack`` in the loss of the objective."""
        reference = self.reference_of(pack)
        losses, loss_weights = self.token_losses(pack)
        return self.objective.terms(losses, loss_weights, pack, reference)

    def reference_of(self, pack: Pack) -> Tensor | None:
        """Return the log-probabilities ``[pairs, 2]`` of both answers of each pair by the base, if its documents bring
        them or the objective needs them; None otherwise."""
        if not (self.objective.of_pairs and pack.pairs):
            return None
        known = known_reference(pack, self.decoder.device)
        if known is not None or not self.objective.needs_reference:
            return known
        return base_answers(self.decoder, pack)

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss``, this rank's part of a sum over ranks, to that of the step."""

    @abstractmethod
    def step(self, learning_rate: float) -> tuple[Tensor, bool]:
        """Sum gradients over ranks, clip, update. Return the gradient norm before clipping (0-d, not finite if the
        gradient is not) and whether the update was made: a non-finite gradient leaves parameters and optimizer
        unchanged. Waits for the device."""

    @abstractmethod
    def discard(self) -> None:
        """Discard the gradients of a step that will not be finished."""

    @abstractmethod
    def parameters(self) -> State:
        """Return the trained parameters in fp32, and what is fixed with them (:meth:`fixed`), on the leading rank,
        nothing on others. Every rank must call this."""

    @abstractmethod
    def optimizer_state(self) -> State:
        """Return the optimizer's state, as ``PARAMETER/KEY``, in the same way as :meth:`parameters`."""

    @abstractmethod
    def load(self, parameters: Mapping[str, Tensor], optimizer: Mapping[str, Tensor] | None) -> None:
        """Load what :meth:`parameters` and :meth:`optimizer_state` returned, on any number of ranks; every rank gets
        all of it. Without ``optimizer`` its state is kept."""

    @abstractmethod
    def static_memory(self) -> StaticMemory:
        """Return the bytes that this rank holds between steps."""

    def advance(self, done: float) -> None:
        """Do what the method does after an update, with which training is ``done``: a share of its schedule."""
        if self.own is not None:
            self.own.advance(done)

    def fixed(self) -> Mapping[str, Tensor]:
        """Return the tensors by name that belong to the parameters and that no gradient changes, as the adapter holds
        them."""
        return self.decoder.adapter.fixed() if self.decoder.adapter else {}

    def sum(self, value: Tensor) -> Tensor:
        """Return ``value`` summed over ranks (in place)."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def close(self) -> None:  # noqa: B027 (most engines hold nothing)
        """Remove what the engine has added to the decoder."""


def on_host(tensor: Tensor) -> Tensor:
    """Return a copy of ``tensor`` on the CPU that nothing else writes to."""
    return tensor.detach().to("cpu", copy=True)


def bytes_of(*tensors: Tensor | None) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
