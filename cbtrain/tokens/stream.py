"""A deterministic, endless stream of micro-batches: every document once an epoch, in an order of its own each epoch.

The plan is global. Which packs make the n-th optimizer step depends on documents, capacity, packs a step, seed and
epoch, and not on how many ranks share the work. A position is three integers: the epoch, the step, and how many of its
packs are computed; a checksum goes with them, so that no other stream is continued by mistake.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbtrain.errors import UserError
from cbtrain.tokens.balance import EQUAL_COST, cost, imbalance, into_steps, share_out
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import Pack, build_pack, filler_pack
from cbtrain.tokens.packing import plan_packs


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What an optimizer step holds, all ranks together: host numbers, known before anything is computed.

    ``weight_sum`` divides the loss. ``packs`` are the step's packs as lists of document indices.
    """

    epoch: int
    step: int
    packs: list[list[int]]
    tokens: int
    supervised: int
    weight_sum: float

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that tell its packs apart from those of another step."""
        return f"{zlib.crc32(repr((self.epoch, self.step, self.packs)).encode()):08x}"


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One pack of this rank; ``last`` says that the optimizer steps after it."""

    pack: Pack
    step: StepInfo
    last: bool


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """The steps of one epoch: ``steps[s]`` are its packs, lists of document indices; ``costs`` in the same shape."""

    steps: list[list[list[int]]]
    costs: list[list[float]]
    method: str
    fill: float

    @property
    def packs(self) -> int:
        return sum(map(len, self.steps))


class PackStream:
    """Iterates over the micro-batches of ``rank`` forever. Every rank gets the same number in every step.

    ``capacity`` is in tokens, ``packs_per_step`` counts all ranks' packs; steps differ by one pack at most. ``equal``
    is the length at which attention costs as much as the rest (:data:`EQUAL_COST`).
    """

    def __init__(
        self,
        documents: Sequence[Document],
        capacity: int,
        seed: int,
        *,
        packs_per_step: int = 1,
        rank: int = 0,
        world: int = 1,
        equal: float = EQUAL_COST,
    ) -> None:
        if not len(documents):
            raise ValueError("a stream needs at least one document")
        self.documents = documents if isinstance(documents, TokenStore) else TokenStore.of(documents)
        self.capacity, self.seed, self.packs_per_step = capacity, seed, packs_per_step
        self.rank, self.world, self.equal = rank, world, equal
        self.epoch = self.step = self.done = 0
        plan = [capacity, seed, packs_per_step, round(1000 * equal), *self.documents.lengths.tolist()]
        self.fingerprint = zlib.crc32(np.asarray(plan, dtype=np.int64).tobytes())
        self._planned: tuple[int, EpochPlan] | None = None

    @property
    def tokens_per_epoch(self) -> int:
        return self.documents.tokens

    def plan(self, epoch: int) -> EpochPlan:
        """All optimizer steps of ``epoch``."""
        if self._planned is None or self._planned[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            lengths = self.documents.lengths
            packing = plan_packs(lengths, self.capacity, random)
            own = cost(lengths, self.equal)
            costs = np.asarray([own[pack].sum() for pack in packing.packs])
            steps = into_steps(costs, self.packs_per_step, random)
            self._planned = (
                epoch,
                EpochPlan(
                    [[packing.packs[place] for place in step] for step in steps],
                    [[float(costs[place]) for place in step] for step in steps],
                    packing.method,
                    packing.fill,
                ),
            )
        return self._planned[1]

    def __iter__(self) -> Iterator[MicroBatch]:
        while True:
            plan = self.plan(self.epoch)
            facts = self._facts(plan)
            rounds = share_out(plan.costs[self.step], self.world, self.done)
            for number, row in enumerate(rounds, 1):
                place = row[self.rank]
                chosen = [] if place is None else [self.documents[index] for index in facts.packs[place]]
                pack = build_pack(chosen) if chosen else filler_pack()
                self.done += sum(place is not None for place in row)
                if number == len(rounds):
                    self.done, self.step = 0, self.step + 1
                    if self.step == len(plan.steps):
                        self.epoch, self.step = self.epoch + 1, 0
                yield MicroBatch(pack, facts, number == len(rounds))

    def _facts(self, plan: EpochPlan) -> StepInfo:
        packs = plan.steps[self.step]
        own = np.concatenate([np.asarray(pack) for pack in packs])
        store = self.documents
        return StepInfo(
            self.epoch,
            self.step,
            packs,
            int(store.lengths[own].sum()),
            int(store.supervised[own].sum()),
            float(store.weight_sums[own].sum()),
        )

    def state(self) -> dict[str, int]:
        """The position of the next micro-batch: the same integers on every rank, and a checksum of what was planned."""
        return {"epoch": self.epoch, "step": self.step, "done": self.done, "plan": self.fingerprint}

    def load_state(self, state: dict[str, int]) -> None:
        """Go on from ``state``, also where it comes from another number of ranks: the packs of a begun step that no
        rank has computed are shared out anew. Takes effect at the next iteration. Raises UserError on a position in
        another stream."""
        if state.get("plan") != self.fingerprint:
            hint = "Go on with the documents, pack_tokens, packs_per_step and seed of the run that wrote it."
            raise UserError("this position is one of another stream of packs", where="checkpoint", hint=hint)
        self.epoch, self.step, self.done = state["epoch"], state["step"], state["done"]

    def describe(self, epoch: int = 0) -> dict[str, Any]:
        """Fill, padding and balance of ``epoch``: shares, and counts of tokens, packs and steps."""
        plan = self.plan(epoch)
        tokens = self.documents.tokens
        return {
            "packs": plan.packs,
            "steps": len(plan.steps),
            "capacity": self.capacity,
            "fill": plan.fill,
            "unused_slots": round(tokens / plan.fill) - tokens,
            "method": plan.method,
            "imbalance": imbalance(plan.costs, self.world),
        }
