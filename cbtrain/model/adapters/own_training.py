"""What a method does in training besides gradients: it has an optimizer of its own, and is told what happens."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch


class OwnTraining(ABC):
    """Made by :meth:`~cbtrain.model.adapters.adapter.Adapter.own_training` for one training. What it must remember
    between steps lies in the state of its :attr:`optimizer`, as tensors by parameter: so it is in every checkpoint.

    A step is: backward passes; then either :meth:`discard`, or :meth:`end_step` after the update and :meth:`advance`
    before anything else looks at the parameters.
    """

    optimizer: torch.optim.Optimizer

    lockstep: bool = False
    """Whether ranks exchange tensors in a backward pass, so that each must make as many as any other."""

    @abstractmethod
    def end_step(self, factor: float) -> None:
        """Take note of an update, for which gradients were multiplied by ``factor``."""

    @abstractmethod
    def advance(self, done: float) -> None:
        """Do what is due after the update, with which training is ``done``: a share of its schedule."""

    @abstractmethod
    def discard(self) -> None:
        """Forget the passes since the last update: there is none from them."""

    @abstractmethod
    def resume(self) -> None:
        """Continue from the state that the optimizer was given."""

    @abstractmethod
    def close(self) -> None:
        """Remove what it has added to the adapter: training has ended."""

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Bytes of all that it remembers, at most."""
