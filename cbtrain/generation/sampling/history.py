"""Tokens that a penalty counts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class TokenCounts:
    """Distinct tokens of a prompt and its answer, and how often each is in the answer. Memory grows with the distinct
    tokens."""

    def __init__(self, prompt: Iterable[int]) -> None:
        seen = list(dict.fromkeys(prompt))
        self._places = {token: place for place, token in enumerate(seen)}
        self._table = torch.zeros((2, max(2 * len(seen), 64)), dtype=torch.int64)
        self._table[0, : len(seen)] = torch.tensor(seen, dtype=torch.int64)

    def add(self, token: int) -> None:
        """Count ``token`` of the answer."""
        place = self._places.setdefault(token, len(self._places))
        if place == self._table.shape[1]:
            self._table = torch.cat([self._table, torch.zeros_like(self._table)], dim=1)
        self._table[0, place] = token
        self._table[1, place] += 1

    @property
    def table(self) -> Tensor:
        """The tokens, and their counts in the answer: ``[2, distinct]`` int64, on the CPU."""
        return self._table[:, : len(self._places)]
