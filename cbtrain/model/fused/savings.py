"""What is computed in another way than the plain one, with the same result: each can be switched off, to compare."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

NAMES = ("fused", "folded", "pruned", "logits")


@dataclass(frozen=True, slots=True)
class Savings:
    """``fused``: layers are computed by :mod:`cbtrain.model.fused`; the next two need it. ``folded``: with many rows
    in fp32 adapters are added to a copy of the weight. ``pruned``: after attention, the last layer computes the rows
    whose result is asked for. ``logits``: the head takes some rows at a time, and makes their gradient with them."""

    fused: bool = True
    folded: bool = True
    pruned: bool = True
    logits: bool = True

    @classmethod
    def without(cls, names: Collection[str]) -> Savings:
        """Return all but those that are named."""
        return cls(**{name: name not in names for name in NAMES})
