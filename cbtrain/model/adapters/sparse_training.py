"""Exchange trained weights for others while sparse deltas are trained: SpIEL (Ansell et al. 2024, arXiv 2401.16405).

After update u a selection is due if ``u mod every`` is ``collect``, but not after the last one. It drops the trained
weights with the smallest values, a share of all, and takes as many others, by one of two rules:
:mod:`.sparse_gradients` and :mod:`.sparse_momentum`. What a rule must know of a linear lies in the optimizer's state of
its values.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cbtrain.model.adapters.own_training import OwnTraining
from cbtrain.model.adapters.sparse_linear import SparseLinear
from cbtrain.model.adapters.sparse_ranks import leading, world
from cbtrain.model.method_settings import SparseConfig

UPDATES = "updates"


@dataclass(frozen=True, slots=True)
class Exchange:
    """``slots`` (int64 ``[n]``) of the values of one linear, and the ``places`` (int32 ``[n]``) that they get."""

    slots: Tensor
    places: Tensor


class SparseTraining(OwnTraining):
    """``updates`` counts those that were made."""

    def __init__(
        self, modules: Mapping[str, SparseLinear], config: SparseConfig, optimizer: torch.optim.Optimizer
    ) -> None:
        self.modules, self.config, self.optimizer = dict(modules), config, optimizer
        self.agree = world() > 1 and not config.has("ranks")
        self.updates = 0

    def end_step(self, factor: float) -> None:
        self.updates += 1
        for module in self.modules.values():
            self.state_of(module)[UPDATES] = torch.tensor(self.updates)

    @torch.no_grad()
    def advance(self, done: float) -> None:
        if self.updates % self.config.every != self.config.collect or done >= 1:  # what begins then is never trained
            return
        share = share_at(self.updates, done, self.config)
        for module in self.modules.values():
            exchange = self.choose(module, math.floor(share * len(module.values)))
            if self.agree:
                exchange = _of_leading_rank(exchange, module)
            module.indices[exchange.slots] = exchange.places
            module.values[exchange.slots] = 0
            self.begin(module, exchange)

    @abstractmethod
    def choose(self, module: SparseLinear, count: int) -> Exchange:
        """Return how ``count`` values of ``module`` get other places: fewer if there are not so many."""

    @abstractmethod
    def begin(self, module: SparseLinear, exchange: Exchange) -> None:
        """Set the optimizer's state of values that have begun at other places."""

    def state_of(self, module: SparseLinear) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.optimizer.state[module.values]
        return state

    def discard(self) -> None:
        pass

    def resume(self) -> None:
        first = next(iter(self.modules.values()))
        self.updates = int(self.state_of(first).get(UPDATES, 0))

    def close(self) -> None:
        pass


def share_at(update: int, done: float, config: SparseConfig) -> float:
    """Return which share of the weights is exchanged after ``update``, with which training is ``done``. By the linear
    policy it is all at the first selection."""
    if config.policy == "cosine":
        return config.share * (1 + math.cos(math.pi * done)) / 2
    return 1.0 if update == config.collect else config.share * (1 - done)


def smallest(values: Tensor, count: int) -> Tensor:
    """Return the slots of the ``count`` smallest ``values`` without their sign, in order; of equal ones the first."""
    return values.detach().abs().sort(stable=True).indices[:count]


def largest(scores: Tensor, count: int) -> Tensor:
    """Return the places (int32) of the ``count`` largest ``scores``, in the order of places; of equal ones the first.
    It sorts none of them: there may be as many as weights."""
    count = min(count, len(scores))
    if not count:
        return torch.empty(0, dtype=torch.int32, device=scores.device)
    least = scores.topk(count, sorted=False).values.min()
    above = (scores > least).nonzero().flatten()
    equal = (scores == least).nonzero().flatten()[: count - len(above)]
    return torch.cat([above, equal]).sort().values.int()


def _of_leading_rank(exchange: Exchange, module: SparseLinear) -> Exchange:
    after = module.indices.clone()
    after[exchange.slots] = exchange.places
    leading(after)
    slots = (after != module.indices).nonzero().flatten()
    return Exchange(slots, after[slots])
