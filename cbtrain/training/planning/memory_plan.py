"""The peak memory of training, predicted."""

from __future__ import annotations

from collections.abc import Sequence

from cbtrain.training.memory.heap import peak_of
from cbtrain.training.memory.malloc import LOW, gives_back
from cbtrain.training.memory.meter import MemorySplit
from cbtrain.training.planning.meta_model import meta_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.static_memory import PredictedStaticMemory, predict_static_memory, static_tensor_sizes
from cbtrain.training.planning.trace import CUDA_GRANULE, Trace, trace
from cbtrain.training.planning.workload import PackShape

KERNELS = 20_000_000
"""Bytes that kernels on CPUs keep for themselves once they have run: buffers of matrix products, stacks of threads."""


def predict_memory(scenario: Scenario, shape: PackShape) -> MemorySplit:
    """Return the peak on one rank, in bytes: of forward and backward pass on a pack of ``shape`` with the optimizer's
    numbers in place (as from the second step on), or of the optimizer's step if that is higher.

    The parts are those at that moment, so they add up; ``gradients`` may be none yet. On CPUs the C library's slack,
    and copies of what is trained (the best, a checkpoint on its way to the disk), are part of the workspace.
    """
    decoder = meta_decoder(scenario)
    static = predict_static_memory(decoder, scenario)
    pack = shape.pack(scenario.architecture.vocabulary)
    traced = trace(decoder, pack, accumulates=scenario.accumulates, granule=granule_of(scenario))
    return at_peak(scenario, static, traced, static_tensor_sizes(decoder, scenario))


def granule_of(scenario: Scenario) -> int:
    """Return the step in bytes in which the device's allocator hands memory out."""
    return CUDA_GRANULE if scenario.device == "cuda" else 1


def at_peak(scenario: Scenario, static: PredictedStaticMemory, traced: Trace, sizes: Sequence[int]) -> MemorySplit:
    """Return the peak of a pass that was ``traced``, beside ``static`` memory in tensors of ``sizes``."""
    activations, gradients, workspace = traced.activations, traced.gradients, traced.workspace
    if scenario.zero_stage in (2, 3):  # each rank keeps its share of the gradients only
        gradients //= scenario.world
    if static.gradients + static.step > activations + gradients + workspace:
        activations, gradients, workspace = 0, static.gradients, static.step
    if scenario.device == "cpu":
        flat = static.weights + static.adapters + gradients + static.optimizer + activations + workspace
        threshold = LOW if gives_back(scenario.device, scenario.activation_checkpointing) else None
        real = peak_of(sizes, traced.events, threshold=threshold)
        workspace += max((real or flat) - flat, 0) + KERNELS
    workspace += static.copies
    total = static.weights + static.adapters + gradients + static.optimizer + activations + workspace
    return MemorySplit(
        weights=static.weights,
        adapters=static.adapters,
        gradients=gradients,
        optimizer=static.optimizer,
        activations=activations,
        workspace=workspace,
        total=total,
        measured=total,
    )
