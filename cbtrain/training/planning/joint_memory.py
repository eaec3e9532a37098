"""The peak memory of passes for several adapters together, predicted (:mod:`cbtrain.training.joint`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cbtrain.model.adapters.lora import LoraAdapter
from cbtrain.model.decoder import Decoder
from cbtrain.model.fused.layer import Group
from cbtrain.tokens.pack import concatenated
from cbtrain.training import joint
from cbtrain.training.memory.meter import MemorySplit
from cbtrain.training.planning.memory_plan import at_peak, granule_of
from cbtrain.training.planning.meta_model import attach_meta, meta_base
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.static_memory import (
    PredictedStaticMemory,
    optimizer_tensor_sizes,
    predict_static_memory,
    static_tensor_sizes,
)
from cbtrain.training.planning.trace import Trace, trace
from cbtrain.training.planning.workload import PackShape

SHORTEST = 2
"""Tokens of a pack that counts for its adapter only."""


def predict_joint_memory(scenarios: Sequence[Scenario], packs: Sequence[PackShape]) -> MemorySplit:
    """Return the peak, in bytes, of steps that several runs make together: with the base, and adapters, optimizers and
    copies of them all. ``packs`` are those that need most, one of each run; the ``scenarios`` differ in adapters,
    optimizers and accumulation only.

    Which packs meet changes from step to step. So the pass that is taken is as full as one can be, and all adapters are
    in it.
    """
    several = sum(pack.tokens for pack in packs) > joint.MOST_TOKENS
    accumulates = several or any(scenario.accumulates for scenario in scenarios)
    first = replace(scenarios[0], accumulates=accumulates)
    runs = [replace(scenario, accumulates=accumulates) for scenario in scenarios]
    decoder, static, sizes = meta_base(first), list[PredictedStaticMemory](), list[int]()
    adapters = []
    for scenario in runs:
        adapter = attach_meta(decoder, scenario.adapter)
        assert isinstance(adapter, LoraAdapter)
        static.append(predict_static_memory(decoder, scenario))
        trained = list(adapter.parameters().values())
        sizes += [4 * parameter.numel() for parameter in trained] + optimizer_tensor_sizes(trained, scenario)
        adapters.append(adapter)
        adapter.remove()
    sizes += static_tensor_sizes(decoder, first)
    found = [
        at_peak(first, _sum(static), _traced(first, decoder, adapters, shapes), sizes)
        for shapes in _passes(first, packs)
    ]
    return max(found, key=lambda split: split.total)


def _passes(scenario: Scenario, packs: Sequence[PackShape]) -> Iterator[list[PackShape | None]]:
    """Yield what may be one pass: of each run its pack, or None if it has no part in it."""

    def scores(number: int) -> tuple[int, int]:
        return sum(map(scenario.bytes_of_scores, packs[number].lengths)), packs[number].tokens

    left, full = joint.MOST_TOKENS, dict[int, PackShape]()
    for number in sorted(range(len(packs)), key=scores, reverse=True):
        full[number] = packs[number].cut(max(left, SHORTEST))
        left -= full[number].tokens
    yield [full[number] for number in range(len(packs))]
    for number, pack in enumerate(packs):
        if pack.tokens > joint.MOST_TOKENS:
            yield [pack if other == number else None for other in range(len(packs))]


def _traced(
    scenario: Scenario, decoder: Decoder, adapters: Sequence[LoraAdapter], shapes: Sequence[PackShape | None]
) -> Trace:
    """Return the memory of one pass; gradients of adapters that have no part in it wait meanwhile."""
    there = [(adapter, shape) for adapter, shape in zip(adapters, shapes, strict=True) if shape is not None]
    packs = [shape.pack(scenario.architecture.vocabulary) for _, shape in there]
    groups = tuple(
        Group(adapter.modules, pack.tokens, pack.supervised) for (adapter, _), pack in zip(there, packs, strict=True)
    )
    found = trace(
        decoder,
        concatenated(packs),
        accumulates=scenario.accumulates,
        granule=granule_of(scenario),
        groups=groups,
    )
    away = [adapter for adapter, shape in zip(adapters, shapes, strict=True) if shape is None]
    waiting = sum(4 * parameter.numel() for adapter in away for parameter in adapter.parameters().values())
    return replace(found, gradients=found.gradients + waiting)


def _sum(parts: Sequence[PredictedStaticMemory]) -> PredictedStaticMemory:
    """Return the static memory of all runs, with the weights of their one base."""
    return PredictedStaticMemory(
        weights=parts[0].weights,
        adapters=sum(part.adapters for part in parts),
        gradients=sum(part.gradients for part in parts),
        optimizer=sum(part.optimizer for part in parts),
        copies=sum(part.copies for part in parts),
        step=max(part.step for part in parts),
    )
