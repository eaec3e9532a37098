"""The matrices of several LoRA adapters at one linear, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.model.adapters.lora_linear import LoraLinear
from cbtrain.model.adapters.row_groups import Product


class LoraStack:
    """``a [in, ranks]`` and ``b [ranks, out]`` of the adapters ``names`` with ``ranks``, in the dtype of activations.

    One pair of products then serves rows of many adapters (as SGMV does, Chen et al. 2023, Punica, arXiv 2310.18547,
    which has a kernel for it; for few ranks a mask is as good). ``b`` holds each adapter's scale, applied in fp32.
    """

    def __init__(self, parts: Sequence[tuple[str, Tensor, Tensor]]) -> None:
        self.names = [name for name, _, _ in parts]
        self.ranks = [len(b) for _, _, b in parts]
        self.a, self.b = torch.cat([a for _, a, _ in parts], 1), torch.cat([b for _, _, b in parts])
        self._slices: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    @property
    def parts(self) -> list[tuple[str, Tensor, Tensor]]:
        """Return name, ``a [in, rank]`` and ``b [rank, out]`` of each adapter: views."""
        return list(zip(self.names, self.a.split(self.ranks, 1), self.b.split(self.ranks), strict=True))

    def add(self, x: Tensor, out: Tensor, product: Product) -> None:
        """Add the updates of ``product`` for inputs ``x [T, in]`` to ``out [T, out]``, in place."""
        ranks = product.first, product.last
        a, b = self._slices.get(ranks) or self._slice(ranks)
        if product.rows is not None:
            x, out = x[product.rows], out[product.rows]
        low = torch.mm(x, a)
        if product.foreign is not None:
            # Not a product with 0, which would keep NaN: a foreign adapter may overflow on this row. Its b times 0 is
            # 0, since adapters with NaN or infinity are refused (`lora_part`).
            low.masked_fill_(product.foreign, 0)
        out.addmm_(low, b)

    def _slice(self, ranks: tuple[int, int]) -> tuple[Tensor, Tensor]:
        first, last = ranks
        self._slices[ranks] = a, b = self.a[:, first:last], self.b[first:last]
        return a, b


def lora_part(name: str, module: LoraLinear, dtype: torch.dtype) -> tuple[str, Tensor, Tensor]:
    """Return ``module``, of the adapter ``name``, as a part of a stack. Raises UserError if it holds NaN or infinity,
    or if its scale takes it there."""
    a, b = module.lora_A.detach().T.to(dtype), (module.scale * module.lora_B.detach()).T.to(dtype)
    if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        problem = f"{module.path!r} holds NaN or infinity once it is scaled and held as {dtype}"
        raise UserError(problem, where=f"adapter {name!r}", hint="Train it again.")
    return name, a, b
