"""Rows ``ours`` and ``plain``: the product's own training step on packs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.training.rows import BETAS, CLIP, DECAY, RATE
from benchmarks.training.run import LORA, Run, StepClock
from benchmarks.training.sessions import BASE, Work
from cbtrain.model.adapters.methods import inject
from cbtrain.model.decoder import Decoder
from cbtrain.model.fused.savings import NAMES, Savings
from cbtrain.model.kernel_choice import Kernels
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.stream import MicroBatch, StepInfo
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.training.memory.malloc import returning_memory
from cbtrain.training.planning.random_model import random_decoder
from cbtrain.training.stage import make_engine
from cbtrain.training.step import train_step


def train(run: Run) -> dict[str, Any]:
    return train_steps(run, loaded(run, Savings()))


def train_plainly(run: Run) -> dict[str, Any]:
    """Train the row with every saving off that has a switch, and without kernels of our own."""
    decoder = loaded(run, Savings.without(NAMES))
    decoder.kernels = Kernels()
    return train_steps(run, decoder)


def train_steps(run: Run, decoder: Decoder) -> dict[str, Any]:
    """Train the steps of the row as the loop does; return :meth:`StepClock.measured`."""
    row, work = run.row, run.work
    settings = StageConfig(
        lora=LORA,
        learning_rate=RATE,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=DECAY,
        clip_norm=CLIP,
        pack_tokens=work.pack_tokens,
        activation_checkpointing=row.activation_checkpointing,
    )
    decoder.activation_checkpointing = settings.activation_checkpointing
    engine = make_engine(decoder, settings, RuntimeConfig())
    clock = StepClock(run.device, engine.live)
    torch.manual_seed(settings.seed)
    decoder.train()
    with returning_memory(decoder.device, settings.activation_checkpointing):
        for step in range(len(work.steps)):
            result = train_step(decoder, engine, [_micro_batch(work, step)], RATE, step=step)
            assert result is not None
            clock.ended()
            clock.saw(result.loss, result.grad_norm)
    return clock.measured(run, work, sum(work.tokens) / (work.pack_tokens * len(work.steps)))


def loaded(run: Run, savings: Savings) -> Decoder:
    """Return the decoder with a new adapter, the same for every row that is compared."""
    if not run.row.compared:
        return random_decoder(replace(run.scenario, savings=savings), torch.device(run.device))
    decoder = load_decoder(str(run.folder / BASE), weights=run.row.weights, device=run.device)
    decoder.savings = savings
    inject(decoder, LORA)  # with the seed of the adapter that the others read from its file
    return decoder


def _micro_batch(work: Work, step: int) -> MicroBatch:
    pack = work.pack(step)
    info = StepInfo(0, step, [work.steps[step]], pack.tokens, pack.supervised, pack.weight_sum)
    return MicroBatch(pack, info, last=True)
