"""The time of a micro-batch and of an optimizer step: measured on few layers and carried over to all, or estimated."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from cbtrain.model.adapters.lora import Targeted
from cbtrain.model.decoder import Decoder
from cbtrain.model.fused.levels import LEVELS
from cbtrain.model.method_settings import SparseConfig
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.engine import TrainingEngine
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.flops import Flops, Training, micro_batch_flops
from cbtrain.training.loss import loss_sum
from cbtrain.training.memory.malloc import returning_memory
from cbtrain.training.planning.machine import ASSUMED_SHARE, Gpu
from cbtrain.training.planning.random_model import random_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.workload import PackShape
from cbtrain.training.telemetry.peak import measured_flops

Clock = Callable[[], float]
"""Seconds since some moment."""

LAYERS = (1, 3)
"""Depths of the decoders that are timed; the time of a layer is their difference."""

ROUNDS = 4
LONGEST = 3.0
"""Seconds that one pass through the deeper of them may take; beyond it the pack is made smaller."""

LARGEST_VOCABULARY = 32_768
"""Largest vocabulary of the timed decoders if the pack has to be made smaller."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of a micro-batch (forward and backward pass) and of an optimizer step. ``how`` says where they come
    from."""

    micro_batch: float
    step: float
    how: str


@dataclass(frozen=True, slots=True)
class Trained:
    """What is trained: the number of an adapter's ``parameters``, or the ``share`` of the base's linears. ``dense`` is
    what :class:`~cbtrain.training.flops.Training` says."""

    parameters: int = 0
    share: float = 1.0
    dense: int = 0

    @classmethod
    def of(cls, decoder: Decoder, scenario: Scenario) -> Trained:
        """Return what ``scenario`` trains of ``decoder``, which may be on the meta device."""
        if scenario.full:
            return cls(share=decoder.trained_share)
        parameters = sum(parameter.numel() for parameter in decoder.trainable_parameters().values())
        return cls(parameters, dense=decoder.adapter.dense_products if decoder.adapter else 0)


BASE_ALONE = Trained()


def flops_of(scenario: Scenario, shape: PackShape, trained: Trained) -> Flops:
    """Return the FLOPs of one micro-batch."""
    training = Training(
        adapter=trained.parameters,
        full=scenario.full,
        share=trained.share,
        activation_checkpointing=scenario.activation_checkpointing,
        fused=scenario.fused,
        pruned=scenario.savings.pruned,
        dense=trained.dense,
    )
    return micro_batch_flops(scenario.architecture, shape.cu_seqlens, shape.supervised, training)


def estimate_time(scenario: Scenario, shape: PackShape, trained: Trained, gpu: Gpu) -> Timing:
    """Return the time on a GPU that is not here: FLOPs ÷ an assumed share of its data sheet's peak."""
    peak = 1e12 * (gpu.bf16 if scenario.compute == torch.bfloat16 else gpu.fp32)
    seconds = flops_of(scenario, shape, trained).hardware / (ASSUMED_SHARE * peak)
    return Timing(seconds, 0.0, f"estimated at {ASSUMED_SHARE:.0%} of the data sheet's peak")


def measure_time(
    scenario: Scenario, shape: PackShape, device: torch.device, clock: Clock = time.perf_counter
) -> Timing:
    """Return the time on ``device`` at one level of recomputation in all layers, as :func:`measure_times`."""
    assert isinstance(scenario.activation_checkpointing, str)
    return measure_times(scenario, shape, device, (scenario.activation_checkpointing,), clock)[0]


def measure_times(
    scenario: Scenario,
    shape: PackShape,
    device: torch.device,
    levels: Sequence[str] = LEVELS,
    clock: Clock = time.perf_counter,
) -> list[Timing]:
    """Return the times on ``device`` at each of ``levels``, measured with decoders of the real sizes but few layers and
    random weights."""
    share = _affordable(scenario, shape, device)
    a = scenario.architecture
    small = shape.scaled(share) if share < 1 else shape
    vocabulary = min(a.vocabulary, LARGEST_VOCABULARY) if share < 1 else a.vocabulary
    timed = [_Timed(_shallow(scenario, layers, vocabulary), small, device, clock) for layers in LAYERS]
    for _ in range(ROUNDS):  # in turns, so that a busy moment of the machine falls on all
        for level in levels:
            with returning_memory(device, level):  # as in training: it takes time
                for decoder in timed:
                    decoder.run(level)
    # The quickest of several: what other programs on the machine have disturbed least.
    step_layer, step_rest = _line([min(decoder.steps) for decoder in timed])
    step = a.layers * step_layer + step_rest * a.vocabulary / vocabulary
    how = f"measured with {LAYERS[0]} and {LAYERS[1]} layers"
    if share < 1:
        how += f", on {share:.1%} of a pack, carried over by operations"
    timings = []
    for level in levels:
        layer, rest = _line([min(decoder.passes[level]) for decoder in timed])
        again = replace(scenario, activation_checkpointing=level)
        one_layer, head = _parts(again, shape)
        small_layer, small_head = _parts(_shallow(again, 1, vocabulary), small)
        timings.append(Timing(a.layers * layer * one_layer / small_layer + rest * head / small_head, step, how))
    return timings


class _Timed:
    """One decoder of few layers, its engine and a pack; the first run warms it up and is forgotten."""

    def __init__(self, scenario: Scenario, shape: PackShape, device: torch.device, clock: Clock) -> None:
        decoder = self.decoder = random_decoder(scenario, device)
        self.pack = shape.pack(scenario.architecture.vocabulary)
        if decoder.adapter:
            decoder.adapter.prepare(0, self.pack.names, self.pack.cu_seqlens)
        self.engine: TrainingEngine = TorchEngine(decoder, StageConfig(optimizer=scenario.optimizer))
        self.device, self.clock = device, clock
        self.passes: dict[str, list[float]] = defaultdict(list)
        self.steps: list[float] = []
        self.run("none")
        self.passes.clear()
        self.steps.clear()

    def run(self, level: str) -> None:
        """Time one micro-batch, with ``level`` of recomputation, and one optimizer step."""
        self.decoder.activation_checkpointing = level
        self.passes[level].append(self._seconds(lambda: self.engine.backward(loss_sum(self.decoder, self.pack))))
        self.steps.append(self._seconds(lambda: self.engine.step(1e-6)))
        self.engine.advance(0.0)

    def _seconds(self, work: Callable[[], object]) -> float:
        started = self.clock()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock() - started


def _shallow(scenario: Scenario, layers: int, vocabulary: int) -> Scenario:
    """Return ``scenario`` with few layers, all of which are adapted."""
    adapter = scenario.adapter
    if isinstance(adapter, Targeted):
        targets = sorted({target.rpartition(".")[2] for target in adapter.targets})
        anywhere: dict[str, Any] = {"layers": None, "targets": targets}
        if isinstance(adapter, SparseConfig) and adapter.parameters:
            adapted = len(adapter.layers or range(scenario.architecture.layers))
            anywhere["parameters"] = max(1, adapter.parameters * layers // adapted)
        adapter = adapter.model_copy(update=anywhere)
    architecture = replace(scenario.architecture, layers=layers, vocabulary=vocabulary)
    return replace(scenario, architecture=architecture, adapter=adapter)


def _line(seconds: list[float]) -> tuple[float, float]:
    """Return the seconds of one layer and of the rest, neither negative."""
    first, second = LAYERS
    layer = max((seconds[1] - seconds[0]) / (second - first), 0.0)
    return layer, max(seconds[0] - first * layer, 0.0)


def _parts(scenario: Scenario, shape: PackShape) -> tuple[float, float]:
    """Return the FLOPs of one layer and of the head."""
    one_layer = replace(scenario, architecture=replace(scenario.architecture, layers=1))
    no_layers = replace(scenario, architecture=replace(scenario.architecture, layers=0))
    head = flops_of(no_layers, shape, BASE_ALONE).hardware
    return flops_of(one_layer, shape, BASE_ALONE).hardware - head, head


def _affordable(scenario: Scenario, shape: PackShape, device: torch.device) -> float:
    """Return the share of the pack that the deeper decoder processes within :data:`LONGEST`, at the speed of a matrix
    product."""
    rate = measured_flops(device, scenario.compute)
    needed = flops_of(_shallow(scenario, LAYERS[-1], scenario.architecture.vocabulary), shape, BASE_ALONE).hardware
    return min(1.0, LONGEST * rate / needed)
