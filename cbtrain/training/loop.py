"""The training loop: step until the budget ends or validation stops improving, keep the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from cbtrain.errors import UserError
from cbtrain.model.adapters.adapter import trainable
from cbtrain.model.architecture import Architecture
from cbtrain.model.decoder import Decoder
from cbtrain.tokens.document import Document
from cbtrain.tokens.prefetch import Prefetcher
from cbtrain.tokens.stream import PackStream
from cbtrain.training.config import TrainingConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.schedule import learning_rate
from cbtrain.training.step import train_step
from cbtrain.training.telemetry import Telemetry
from cbtrain.training.validation import Loss, measure_loss

MAX_SKIPPED = 5
"""Steps in a row with a non-finite gradient before the run is given up."""


@dataclass(slots=True)
class TrainingResult:
    """What was trained, on how much, and what it came to. Losses are nats per supervised token.

    ``share_of_corpus`` is the share of the training split that the model has seen; the caller, who chose the
    documents, fills it in. ``data`` says how the documents were laid out and packed.
    """

    name: str
    method: str
    parameters: int
    trainable: int
    token_budget: int
    tokens: int = 0
    supervised_tokens: int = 0
    epochs: float = 0.0
    steps: int = 0
    skipped_steps: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    share_of_corpus: float = 0.0
    stopped: str = "budget"
    validation_before: float | None = None
    validation_best: float | None = None
    data: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, float | None]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def equal_cost(architecture: Architecture) -> float:
    """The document length at which attention costs as much as the linears, as for ``balance.EQUAL_COST``."""
    a = architecture
    attention = a.heads * a.head_dim
    weights = a.hidden * (2 * attention + 2 * a.kv_heads * a.head_dim + 3 * a.intermediate)
    return weights / attention


def check_packs_per_step(config: TrainingConfig, world: int, name: str) -> int:
    """Packs of one optimizer step of stage ``name``. Raises UserError where they cannot feed ``world`` ranks."""
    packs = config.packs_per_step or world
    if packs < world:
        fix = f"Set {name}.packs_per_step to a multiple of {world}."
        raise UserError(f"{packs} packs a step cannot feed {world} ranks", where=f"{name}.packs_per_step", fix=fix)
    return packs


def train(
    name: str,
    decoder: Decoder,
    documents: Sequence[Document],
    validation: Sequence[Document],
    config: TrainingConfig,
    folder: Path,
    console: Console,
) -> TrainingResult:
    """Train the parameters of ``decoder`` that require a gradient; it ends with the best of them in place.

    ``documents`` are what one epoch holds. ``validation`` is measured before the first step, every
    ``config.validate_every`` tokens, and at the end. Raises UserError when gradients stay non-finite.
    """
    parameters = trainable(decoder)
    engine = TorchEngine(parameters, config)
    packs_per_step = check_packs_per_step(config, engine.world, name)
    stream = PackStream(
        documents,
        config.pack_tokens,
        config.seed,
        packs_per_step=packs_per_step,
        rank=engine.rank,
        world=engine.world,
        equal=equal_cost(decoder.architecture),
    )
    budget = min(config.token_budget, config.max_epochs * stream.tokens_per_epoch)
    result = TrainingResult(
        name=name,
        method=config.method,
        parameters=sum(p.numel() for p in decoder.parameters()),
        trainable=sum(p.numel() for p in parameters),
        token_budget=config.token_budget,
        data=stream.describe(),
    )
    best = _Best(parameters, patience=config.patience)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    decoder.train()
    in_a_row, last_validated = 0, 0
    loss_since: list[float] = []
    with (
        Telemetry(name, budget, folder, console, active=engine.rank == 0) as telemetry,
        Prefetcher(stream, pin=decoder.device.type == "cuda") as batches,
    ):

        def validate() -> None:
            own = measure_loss(decoder, validation[engine.rank :: engine.world], config.pack_tokens)
            # Summed, so that every rank has the same number to the last bit and stops at the same step.
            shared = engine.sum(torch.tensor([own.total, own.tokens], dtype=torch.float64, device=parameters[0].device))
            loss = Loss(*shared.tolist()).mean
            recent = sum(loss_since) / len(loss_since) if loss_since else None
            result.curve.append({"tokens": result.tokens, "train_loss": recent, "validation_loss": loss})
            telemetry.validation(tokens=result.tokens, loss=loss, best=best.offer(loss))
            loss_since.clear()

        validate()
        result.validation_before = best.loss
        while result.tokens < budget and not best.exhausted:
            batch = batches.step()
            rate = learning_rate(result.tokens / budget, config)
            done = train_step(decoder, engine, batch, rate, step=result.steps)
            result.steps += 1
            result.tokens += batch[0].step.tokens
            result.supervised_tokens += done.supervised
            result.skipped_steps += done.skipped
            in_a_row = in_a_row + 1 if done.skipped else 0
            if in_a_row == MAX_SKIPPED:
                sessions = ", ".join(batch[0].pack.names[:3])
                fix = "Lower the learning rate."
                raise UserError(f"gradients are not finite {MAX_SKIPPED} steps in a row", where=sessions, fix=fix)
            loss_since.append(done.loss)
            telemetry.step(
                tokens=result.tokens,
                loss=done.loss,
                validation=result.curve[-1]["validation_loss"],
                step=result.steps,
                epoch=batch[0].step.epoch,
                learning_rate=rate,
                grad_norm=done.grad_norm,
                supervised=done.supervised,
                skipped=done.skipped,
            )
            if result.tokens - last_validated >= config.validate_every:
                last_validated = result.tokens
                validate()
        if result.tokens > last_validated:
            validate()
        best.restore()
        result.seconds = round(telemetry.seconds, 2)
    decoder.eval()
    result.stopped = "validation" if best.exhausted else "budget"
    result.validation_best = best.loss
    result.epochs = round(result.tokens / stream.tokens_per_epoch, 3)
    result.tokens_per_second = round(result.tokens / max(result.seconds, 1e-9), 1)
    return result


class _Best:
    """The parameters of the best validation so far, and how long ago that was."""

    def __init__(self, parameters: Sequence[nn.Parameter], patience: int) -> None:
        self.parameters, self.patience = parameters, patience
        self.loss, self.waited = float("inf"), 0
        self.values: list[Tensor] = []

    def offer(self, loss: float) -> bool:
        """Keep the current parameters if ``loss`` is the lowest yet; says whether it is."""
        if loss < self.loss:
            self.loss, self.waited = loss, 0
            self.values = [p.detach().clone() for p in self.parameters]
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        return self.waited >= self.patience

    def restore(self) -> None:
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.data.copy_(value)
