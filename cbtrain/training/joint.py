"""Optimizer steps of several adapters with one pass through their base: its products are computed for all rows at once.

For small packs the products, and the calls around them, cost less together (docs/log.md). Each adapter has its own
rows, loss and optimizer, so it learns what it would learn alone, up to rounding: products of more rows may add their
numbers in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cbtrain.model.adapters.lora import LoraAdapter
from cbtrain.model.decoder import Decoder
from cbtrain.model.fused.layer import Group
from cbtrain.model.fused.obstacles import obstacle
from cbtrain.tokens.pack import concatenated
from cbtrain.tokens.stream import MicroBatch
from cbtrain.training.engines.engine import TrainingEngine
from cbtrain.training.loss import token_losses
from cbtrain.training.objectives.measures import nothing
from cbtrain.training.objectives.objective import Terms
from cbtrain.training.step import NOTHING, StepResult, share_of_loss, update

MOST_TOKENS = 4096
"""Tokens of a joint pass on CPUs: with more, each run's own products are as fast (docs/log.md)."""


@dataclass(frozen=True, slots=True)
class Task:
    """The next optimizer step of one adapter: its micro-batches of this rank, and its learning rate."""

    adapter: LoraAdapter
    engine: TrainingEngine
    batches: Sequence[MicroBatch]
    learning_rate: float


def joint_obstacle(decoder: Decoder, adapter: LoraAdapter, pack_tokens: int) -> str | None:
    """Return why the rows of ``adapter``, which ``decoder`` has now, in training, are not computed with those of
    others on one rank, or None. ``pack_tokens`` are those of its packs."""
    if pack_tokens >= MOST_TOKENS:
        return f"packs of {pack_tokens:,} tokens"
    if adapter.trained:
        return "modules_to_save"
    if not decoder.savings.fused:
        return "training.savings_off"
    return next((reason for block in decoder.layers if (reason := obstacle(block))), None)


def train_jointly(
    decoder: Decoder, tasks: Sequence[Task], *, stop: Callable[[], bool] = lambda: False
) -> list[StepResult | None]:
    """Make the optimizer step of each of ``tasks``, as :func:`cbtrain.training.step.train_step` would; ``decoder`` has
    no adapter. Return the results in the order of ``tasks``, None for all if ``stop``, asked after each pass, ended the
    steps: parameters and optimizers are then as they were."""
    totals = [torch.zeros((), device=decoder.device) for _ in tasks]
    measures = [nothing(decoder.device) for _ in tasks]
    for number in range(max(len(task.batches) for task in tasks)):
        here = [index for index, task in enumerate(tasks) if number < len(task.batches)]
        here = [index for index in here if tasks[index].batches[number].pack.supervised]
        tokens = {index: tasks[index].batches[number].pack.tokens for index in here}
        for some in _passes(tokens):
            for index, of_task in zip(some, _backward(decoder, [tasks[index] for index in some], number), strict=True):
                totals[index] += of_task[0]
                measures[index] += of_task[1]
            if stop():
                for task in tasks:
                    task.engine.discard()
                return [None] * len(tasks)
    return [_finished(*of_task) for of_task in zip(tasks, totals, measures, strict=True)]


def _passes(tokens: Mapping[int, int]) -> Iterator[list[int]]:
    """Yield groups of the keys of ``tokens``, in order, with :data:`MOST_TOKENS` together at most, or one alone."""
    group: list[int] = []
    for task, count in tokens.items():
        if group and sum(tokens[other] for other in group) + count > MOST_TOKENS:
            yield group
            group = []
        group.append(task)
    if group:
        yield group


def _backward(decoder: Decoder, tasks: Sequence[Task], number: int) -> list[tuple[Tensor, Tensor | float]]:
    """Add to the gradients of each task those of its micro-batch ``number``. Return the losses, and the measures of
    their pairs; nothing else of the pass is left when the next one begins."""
    terms = _terms(decoder, tasks, number)
    losses = [share_of_loss(own, task.batches[number].step) for own, task in zip(terms, tasks, strict=True)]
    torch.stack(losses).sum().backward()
    return [(loss.detach(), own.measures) for loss, own in zip(losses, terms, strict=True)]


def _terms(decoder: Decoder, tasks: Sequence[Task], number: int) -> list[Terms]:
    """Return the terms of each task's micro-batch ``number`` in its loss."""
    packs = [task.batches[number].pack for task in tasks]
    groups = tuple(
        Group(task.adapter.modules, pack.tokens, pack.supervised) for task, pack in zip(tasks, packs, strict=True)
    )
    counts = [pack.supervised for pack in packs]
    losses, weights = (each.split(counts) for each in token_losses(decoder, concatenated(packs), groups))
    return [
        task.engine.objective.terms(own, own_weights, pack, task.engine.reference_of(pack))
        for task, pack, own, own_weights in zip(tasks, packs, losses, weights, strict=True)
    ]


def _finished(task: Task, total: Tensor, measures: Tensor) -> StepResult:
    info = task.batches[0].step
    return NOTHING if info.weight_sum == 0 else update(task.engine, task.learning_rate, total, info, measures)
