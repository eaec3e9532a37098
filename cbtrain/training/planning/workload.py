"""The documents of an epoch in packs, and the pack that needs most memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.model.head import rows_at_once
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import Pack, build_pack
from cbtrain.tokens.packing import plan_packs
from cbtrain.training.planning.scenario import Scenario

ASSUMED_SHARE = 0.6
"""Supervised share of the tokens if there is no corpus; in the study's corpus it is 0.61."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The input of training, in packs of ``capacity`` tokens. ``lengths`` and ``supervised`` are tokens of an epoch's
    documents, None if they are not known. ``longest`` limits a document (``tokens.document_tokens``); None: the
    capacity."""

    capacity: int
    lengths: Sequence[int] | None = None
    supervised: Sequence[int] | None = None
    longest: int | None = None

    @classmethod
    def of(cls, documents: TokenStore, capacity: int, longest: int | None = None) -> Workload:
        return cls(capacity, documents.lengths.tolist(), documents.supervised.tolist(), longest)

    @property
    def tokens(self) -> int | None:
        """Tokens of an epoch."""
        return sum(self.lengths) if self.lengths is not None else None

    def resized(self, capacity: int) -> Workload:
        """Return the same tokens in packs of ``capacity``; documents are assumed to be cut to it if they would be."""
        if self.lengths is None or self.supervised is None:
            return Workload(capacity)
        pieces = [
            piece
            for length, counted in zip(self.lengths, self.supervised, strict=True)
            for piece in _cut(length, counted, self.longest or capacity)
        ]
        return Workload(capacity, [length for length, _ in pieces], [counted for _, counted in pieces], self.longest)

    def changes(self, capacity: int) -> bool:
        """Return whether ``capacity`` changes the packs: not if each holds one long document either way."""
        return self.resized(capacity).packs() != self.packs()

    def packs(self) -> list[PackShape]:
        """Return the packs of an epoch; one pack of one document if the documents are not known."""
        if not self.lengths or self.supervised is None:
            return [PackShape((self.capacity,), round(ASSUMED_SHARE * self.capacity))]
        planned = plan_packs(np.asarray(self.lengths), self.capacity, np.random.default_rng(0)).packs
        return [
            PackShape(tuple(self.lengths[i] for i in pack), sum(self.supervised[i] for i in pack)) for pack in planned
        ]


@dataclass(frozen=True, slots=True)
class PackShape:
    """Lengths of a pack's documents, and how many of its tokens are supervised."""

    lengths: tuple[int, ...]
    supervised: int

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def cu_seqlens(self) -> list[int]:
        return [0, *np.cumsum(self.lengths).tolist()]

    def scaled(self, share: float) -> PackShape:
        """Return a smaller pack of the same kind: its documents shortened to ``share``, at least two tokens each."""
        lengths = tuple(max(2, round(length * share)) for length in self.lengths)
        return PackShape(lengths, min(max(1, round(self.supervised * share)), sum(lengths) - len(lengths)))

    def cut(self, tokens: int) -> PackShape:
        """Return its first ``tokens`` tokens, two or more, with as many supervised ones as can be among them."""
        lengths: list[int] = []
        for length in self.lengths:
            if (left := tokens - sum(lengths)) >= 2:
                lengths.append(min(length, left))
        return PackShape(tuple(lengths), max(1, min(self.supervised, sum(lengths) - len(lengths))))

    def pack(self, vocabulary: int) -> Pack:
        """Return a pack of this shape with made-up words. The supervised tokens lie at the documents' ends."""
        random, left = np.random.default_rng(0), self.supervised
        documents = []
        for number, length in enumerate(self.lengths):
            share = left if number == len(self.lengths) - 1 else round(self.supervised * length / self.tokens)
            counted = max(0, min(share, left, length - 1))
            left -= counted
            loss_weights = np.zeros(length, np.float32)
            loss_weights[length - counted :] = 1
            ids = random.integers(0, vocabulary, length).astype(np.int32)
            documents.append(Document(f"document {number}", ids, loss_weights))
        return build_pack(documents)


def largest(packs: Iterable[PackShape], scenario: Scenario, *, keeps_all: bool) -> PackShape:
    """Return the pack that needs most memory, by a rough count of activations per token, logits per supervised token
    and scores. Its exact memory is then traced. ``keeps_all``: layers keep what they need, not their inputs alone."""
    a, size = scenario.architecture, scenario.compute.itemsize
    wide = a.hidden * 6 + a.intermediate * 4 + 3 * (a.heads + a.kv_heads) * a.head_dim
    token = a.layers * size * (wide if keeps_all else a.hidden)
    row, most = a.vocabulary * (3 * 4 + size), rows_at_once(a.vocabulary, scenario.device)
    times = a.layers if keeps_all else 1

    def needed(pack: PackShape) -> tuple[int, int]:
        scores = times * sum(map(scenario.bytes_of_scores, pack.lengths))
        return pack.tokens * token + min(pack.supervised, most) * row + scores, pack.tokens

    return max(packs, key=needed)


def _cut(length: int, counted: int, capacity: int) -> list[tuple[int, int]]:
    """Return pieces of at most ``capacity`` tokens, each with its share of the ``counted`` supervised ones."""
    pieces = [min(capacity, length - begin) for begin in range(0, length, capacity)]
    return [(piece, round(counted * piece / length)) for piece in pieces]
