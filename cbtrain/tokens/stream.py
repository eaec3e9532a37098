"""A deterministic, endless stream of packs: every document once an epoch, in an order of its own each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cbtrain.tokens.chat import Document
from cbtrain.tokens.packing import Pack, build_pack, plan_packs


class PackStream:
    """Iterates over packs of ``documents`` forever; its position is two integers, ``epoch`` and ``index``.

    ``capacity`` is in tokens. The order depends on ``seed`` and epoch only, so a stream set to another's position
    goes on with the same packs.
    """

    def __init__(self, documents: Sequence[Document], capacity: int, seed: int) -> None:
        if not documents:
            raise ValueError("a stream needs at least one document")
        self.documents, self.capacity, self.seed = documents, capacity, seed
        self.epoch, self.index = 0, 0
        self._planned: tuple[int, list[list[int]]] = (-1, [])

    @property
    def tokens_per_epoch(self) -> int:
        return sum(len(document) for document in self.documents)

    def plan(self, epoch: int) -> list[list[int]]:
        """The packs of ``epoch`` as lists of document indices, in the order in which they are trained."""
        if self._planned[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            order = random.permutation(len(self.documents)).tolist()
            packs = plan_packs([len(self.documents[i]) for i in order], self.capacity)
            shuffled = [[order[i] for i in packs[p]] for p in random.permutation(len(packs))]
            self._planned = (epoch, shuffled)
        return self._planned[1]

    def __iter__(self) -> Iterator[Pack]:
        while True:
            packs = self.plan(self.epoch)
            pack = build_pack([self.documents[i] for i in packs[self.index]])
            self.index += 1
            if self.index == len(packs):
                self.epoch, self.index = self.epoch + 1, 0
            yield pack

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "index": self.index}

    def load_state(self, state: dict[str, int]) -> None:
        self.epoch, self.index = state["epoch"], state["index"]
