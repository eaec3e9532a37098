"""The optimizers of sparse deltas whose places change, as SpIEL has them (Ansell et al. 2024, arXiv 2401.16405): AdamW
with an age for each weight, and SM3 (Anil et al. 2019, arXiv 1901.11150).

In both the weight decay follows the step: ``values -= rate · decay · values``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cbtrain.model.adapters.sparse_linear import SparseLinear

AGE, MEAN, SQUARE = "age", "exp_avg", "exp_avg_sq"
ROWS, COLUMNS = "accumulator_rows", "accumulator_columns"

SM3_EPS = 1e-8


class AgedAdamW(torch.optim.Optimizer):
    """AdamW whose bias correction goes by the age of each weight, the number of its next update. With ``frozen`` ages
    advance in fp32 only, as in the program of SpIEL's authors."""

    def __init__(
        self,
        modules: Sequence[SparseLinear],
        rate: float,
        betas: tuple[float, float],
        decay: float,
        *,
        eps: float = 1e-8,
        frozen: bool = False,
    ) -> None:
        self.frozen = frozen
        defaults = {"lr": rate, "betas": betas, "eps": eps, "weight_decay": decay}
        super().__init__([module.values for module in modules], defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for values in group["params"]:
                if values.grad is not None:
                    self._update(values, values.grad, group)

    def _update(self, values: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, rate, (beta1, beta2) = self.state[values], group["lr"], group["betas"]
        if MEAN not in state:
            state[MEAN], state[SQUARE] = torch.zeros_like(values), torch.zeros_like(values)
            state[AGE] = torch.ones_like(values)
        mean, square, age = state[MEAN], state[SQUARE], state[AGE]
        mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        rates = rate * (1 - beta2**age).sqrt() / (1 - beta1**age)
        values.sub_(rates * mean / (square.sqrt() + group["eps"]))
        values.mul_(1 - rate * group["weight_decay"])
        if not self.frozen or values.dtype == torch.float32:
            age.add_(1)


class Sm3(torch.optim.Optimizer):
    """SM3 that knows of each weight's gradients what its row's and its column's largest sum of squares tell. They stay
    when a weight is exchanged for another."""

    def __init__(self, modules: Sequence[SparseLinear], rate: float, decay: float) -> None:
        self.modules = modules
        super().__init__([module.values for module in modules], {"lr": rate, "weight_decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        (group,) = self.param_groups
        for module in self.modules:
            if module.values.grad is not None:
                self._update(module, module.values.grad, group)

    def _update(self, module: SparseLinear, gradient: Tensor, group: dict[str, Any]) -> None:
        values, (height, width) = module.values, module.shape
        state = self.state[values]
        if ROWS not in state:
            state[ROWS], state[COLUMNS] = values.new_zeros(height), values.new_zeros(width)
        row, column = module.indices.long() // width, module.indices.long() % width
        largest = torch.minimum(state[ROWS][row], state[COLUMNS][column]) + gradient * gradient
        state[ROWS].scatter_reduce_(0, row, largest, "amax")
        state[COLUMNS].scatter_reduce_(0, column, largest, "amax")
        values.sub_(group["lr"] * gradient / (largest + SM3_EPS).sqrt())
        values.mul_(1 - group["lr"] * group["weight_decay"])
