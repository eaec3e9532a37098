"""A deterministic, endless stream of micro-batches: every document once an epoch, in a new order each epoch.

The plan is global: the packs of the n-th optimizer step depend on documents, capacity, packs a step, seed and epoch,
not on the number of ranks. A position is three integers: the epoch, the step, and how many of the step's packs are
computed. A checksum of the plan is stored with it, so that no other stream is continued by mistake.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbtrain.errors import UserError
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import Pack, build_pack, filler_pack
from cbtrain.tokens.packing import EQUAL_COST, cost, imbalance, into_steps, plan_packs, share_out


@dataclass(frozen=True, slots=True)
class StepInfo:
    """The packs of an optimizer step on all ranks and their counts: host numbers, known before the step is computed.

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
        """Checksum of the step's packs: eight hexadecimal digits."""
        return f"{zlib.crc32(repr((self.epoch, self.step, self.packs)).encode()):08x}"


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One pack of this rank; after the ``last`` of a step the optimizer updates the weights."""

    pack: Pack
    step: StepInfo
    last: bool


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """The steps of one epoch: ``steps[s]`` are a step's packs, lists of document indices; ``costs[s]`` their costs."""

    steps: list[list[list[int]]]
    costs: list[list[float]]
    method: str
    fill: float

    @property
    def packs(self) -> int:
        """Number of packs of the epoch."""
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
        """Return all optimizer steps of ``epoch``."""
        if self._planned is None or self._planned[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            lengths = self.documents.lengths
            packing = plan_packs(lengths, self.capacity, random)
            document_costs = cost(lengths, self.equal)
            costs = np.asarray([document_costs[pack].sum() for pack in packing.packs])
            steps = into_steps(costs, self.packs_per_step, random)
            self._planned = (
                epoch,
                EpochPlan(
                    [[packing.packs[pack] for pack in step] for step in steps],
                    [[float(costs[pack]) for pack in step] for step in steps],
                    packing.method,
                    packing.fill,
                ),
            )
        return self._planned[1]

    def __iter__(self) -> Iterator[MicroBatch]:
        while True:
            plan = self.plan(self.epoch)
            info = self._step_info(plan)
            rounds = share_out(plan.costs[self.step], self.world, self.done)
            for number, row in enumerate(rounds, 1):
                index = row[self.rank]
                documents = [] if index is None else [self.documents[document] for document in info.packs[index]]
                pack = build_pack(documents) if documents else filler_pack()
                self.done += sum(index is not None for index in row)
                if number == len(rounds):
                    self.done, self.step = 0, self.step + 1
                    if self.step == len(plan.steps):
                        self.epoch, self.step = self.epoch + 1, 0
                yield MicroBatch(pack, info, number == len(rounds))

    def _step_info(self, plan: EpochPlan) -> StepInfo:
        packs = plan.steps[self.step]
        documents = np.concatenate([np.asarray(pack) for pack in packs])
        store = self.documents
        return StepInfo(
            self.epoch,
            self.step,
            packs,
            int(store.lengths[documents].sum()),
            int(store.supervised[documents].sum()),
            float(store.weight_sums[documents].sum()),
        )

    def state(self) -> dict[str, int]:
        """Return the position of the next micro-batch, the same on every rank, and a checksum of the plan."""
        return {"epoch": self.epoch, "step": self.step, "done": self.done, "plan": self.fingerprint}

    def load_state(self, state: dict[str, int]) -> None:
        """Continue from ``state`` at the next iteration, on any number of ranks: packs of a begun step that no rank has
        computed are distributed again. Raises UserError if ``state`` is a position in another stream."""
        if state.get("plan") != self.fingerprint:
            hint = "Continue with the documents, pack_tokens, packs_per_step and seed of the run that wrote it."
            raise UserError("this position belongs to another stream of packs", where="checkpoint", hint=hint)
        self.epoch, self.step, self.done = state["epoch"], state["step"], state["done"]

    def describe(self, epoch: int = 0) -> dict[str, Any]:
        """Return fill, padding and balance of ``epoch``: shares, and counts of tokens, packs and steps."""
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
