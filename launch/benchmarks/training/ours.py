"""Rows ``ours`` and ``plain``: the product's own training step on packs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.training.rows import BETAS, CLIP, DECAY, RATE
from benchmarks.training.run import LORA, Run, StepClock
from benchmarks.training.sessions import BASE, Work
from cbtrain.model.adapters.methods import inject
from cbtrain.model.decoder import Decoder
from cbtrain.model.fused.savings import NAMES, Savings
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.stream import MicroBatch, StepInfo
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.training.memory.malloc import returning_memory
from cbtrain.training.planning.random_model import random_decoder
from cbtrain.training.stage import make_engine
from cbtrain.training.step import train_step

Change = Callable[[Decoder, StageConfig], StageConfig]
"""Changes a decoder before it is trained, and returns the settings to train it with."""


def as_it_is(decoder: Decoder, settings: StageConfig) -> StageConfig:
    return settings


def without_savings(decoder: Decoder, settings: StageConfig) -> StageConfig:
    """Switch off every saving that has a switch."""
    decoder.savings = Savings.without(NAMES)
    return settings


def train(run: Run, change: Change = as_it_is) -> dict[str, Any]:
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
    decoder = _loaded(run)
    settings = change(decoder, settings)
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


def train_plainly(run: Run) -> dict[str, Any]:
    return train(run, without_savings)


def _loaded(run: Run) -> Decoder:
    if not run.row.compared:
        return random_decoder(run.scenario, torch.device(run.device))
    decoder = load_decoder(str(run.folder / BASE), weights=run.row.weights, device=run.device)
    inject(decoder, LORA)  # with the seed of the adapter that the others read from its file
    return decoder


def _micro_batch(work: Work, step: int) -> MicroBatch:
    pack = work.pack(step)
    info = StepInfo(0, step, [work.steps[step]], pack.tokens, pack.supervised, pack.weight_sum)
    return MicroBatch(pack, info, last=True)
