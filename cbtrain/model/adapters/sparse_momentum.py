"""SpIEL-MA: grow where the optimizer's accumulators of row and column are largest."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from cbtrain.model.adapters.sparse_linear import SparseLinear
from cbtrain.model.adapters.sparse_optimizers import COLUMNS, ROWS, Sm3
from cbtrain.model.adapters.sparse_training import Exchange, SparseTraining, largest, smallest
from cbtrain.model.method_settings import SparseConfig


class MomentumTraining(SparseTraining):
    """A weight's score is the product of its row's and its column's accumulator. A weight that is dropped cannot come
    back in the same selection."""

    def __init__(self, modules: Mapping[str, SparseLinear], config: SparseConfig, rate: float, decay: float) -> None:
        super().__init__(modules, config, Sm3(list(modules.values()), rate, decay))

    def choose(self, module: SparseLinear, count: int) -> Exchange:
        state, count = self.state_of(module), min(count, module.shape[0] * module.shape[1] - len(module.values))
        if ROWS not in state:  # no gradient has reached this linear
            return Exchange(smallest(module.values, 0), module.indices[:0])
        scores = torch.outer(state[ROWS], state[COLUMNS]).flatten()
        scores[module.indices.long()] = -1.0
        places = largest(scores, count)
        best_first = scores[places.long()].sort(descending=True, stable=True).indices
        return Exchange(smallest(module.values, count), places[best_first])

    def begin(self, module: SparseLinear, exchange: Exchange) -> None:
        """Keep the accumulators: they are those of rows and columns."""

    @property
    def state_bytes(self) -> int:
        return sum(4 * sum(module.shape) for module in self.modules.values())
