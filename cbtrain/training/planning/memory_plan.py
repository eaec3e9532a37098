"""The peak memory of training, predicted."""

from __future__ import annotations

from cbtrain.training.memory.heap import peak_of
from cbtrain.training.memory.malloc import LOW, gives_back
from cbtrain.training.memory.meter import MemorySplit
from cbtrain.training.planning.meta_model import shadow_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.static_memory import held, held_sizes
from cbtrain.training.planning.trace import CUDA_GRANULE, trace
from cbtrain.training.planning.workload import PackShape

KERNELS = 20_000_000
"""Bytes that kernels on CPUs keep for themselves once they have run: buffers of matrix products, stacks of threads."""


def predict_memory(setting: Scenario, shape: PackShape) -> MemorySplit:
    """Return the peak on one rank, in bytes: of forward and backward pass on a pack of ``shape`` with the optimizer's
    numbers in place (as from the second step on), or of the optimizer's step where that is higher.

    The parts are those at that moment, so they add up; ``gradients`` may be none yet. On CPUs the C library's slack,
    and copies of what is trained (the best, a checkpoint on its way to the disk), are part of the workspace.
    """
    decoder = shadow_decoder(setting)
    always = held(decoder, setting)
    traced = trace(
        decoder,
        shape.pack(setting.architecture.vocabulary),
        accumulates=setting.accumulates,
        granule=CUDA_GRANULE if setting.device == "cuda" else 1,
    )
    activations, gradients, workspace = traced.activations, traced.gradients, traced.workspace
    if setting.zero_stage in (2, 3):  # each rank keeps its share of the gradients only
        gradients //= setting.world
    if always.gradients + always.step > activations + gradients + workspace:
        activations, gradients, workspace = 0, always.gradients, always.step
    if setting.device == "cpu":
        flat = always.weights + always.adapters + gradients + always.optimizer + activations + workspace
        threshold = LOW if gives_back(setting.device, setting.activation_checkpointing) else None
        real = peak_of(held_sizes(decoder, setting), traced.events, threshold=threshold)
        workspace += max((real or flat) - flat, 0) + KERNELS
    workspace += always.copies
    total = always.weights + always.adapters + gradients + always.optimizer + activations + workspace
    return MemorySplit(
        always.weights, always.adapters, gradients, always.optimizer, activations, workspace, total, total
    )
