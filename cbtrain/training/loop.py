"""The training loop: step until the budget ends or validation stops improving, keep the best, lose nothing."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cbtrain.errors import Stopped, UserError
from cbtrain.files import write_atomic
from cbtrain.model.decoder import Decoder
from cbtrain.model.weights.memory import weight_memory
from cbtrain.tokens.document import Document
from cbtrain.tokens.prefetch import Prefetcher
from cbtrain.tokens.stream import MicroBatch, PackStream, StepInfo
from cbtrain.training import distributed
from cbtrain.training.checkpoints.checkpoint import Checkpoint, ParameterFiles, PlainFiles, set_aside
from cbtrain.training.checkpoints.resuming import check_same, find_best, find_newest
from cbtrain.training.checkpoints.schedule import SaveClock
from cbtrain.training.checkpoints.writer import CheckpointWriter, remove_leftovers
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.training.engines import make_engine
from cbtrain.training.engines.engine import State
from cbtrain.training.flops import Flops, step_flops
from cbtrain.training.memory.malloc import returning_memory
from cbtrain.training.memory.meter import MemoryMeter
from cbtrain.training.packs import open_stream
from cbtrain.training.progress import Progress
from cbtrain.training.result import TrainingResult
from cbtrain.training.schedule import learning_rate
from cbtrain.training.signals import StopSignals
from cbtrain.training.step import StepResult, train_step
from cbtrain.training.telemetry.loggers import open_loggers
from cbtrain.training.telemetry.peak import find_peak
from cbtrain.training.telemetry.telemetry import Telemetry
from cbtrain.training.validation import overall, validate, with_perplexity

SKIPPED = "skipped.json"
"""Which documents were in the steps that were not finite, written when a run is given up."""


def train(
    name: str,
    decoder: Decoder,
    documents: Sequence[Document],
    validation: Sequence[Document],
    config: StageConfig,
    folder: Path,
    console: Console,
    *,
    runtime: RuntimeConfig | None = None,
    files: ParameterFiles | None = None,
    groups: Sequence[str] | None = None,
    meter: MemoryMeter | None = None,
) -> tuple[TrainingResult, State]:
    """Train the parameters of ``decoder`` that require a gradient; it ends with the best of them in place (but in ZeRO
    stage 3), and the leading rank gets them too, in fp32 by name.

    ``documents`` are what one epoch holds. ``validation`` is measured before the first step, every
    ``config.validate_every`` tokens, and at the end, also by ``groups`` (of each document one). Checkpoints, in which
    trained parameters lie as ``files`` says, and ``metrics.jsonl`` are written to ``folder``; with
    ``runtime.resume=auto`` it goes on from the newest whole one there. Raises UserError when gradients stay non-finite,
    :class:`Stopped` when a signal ends it.
    """
    runtime = runtime or RuntimeConfig()
    with MemoryMeter(decoder.device) if meter is None else contextlib.nullcontext(meter) as meter:
        stage = StageRun(name, decoder, documents, config, folder, runtime, files or PlainFiles(), meter)
        return stage.run(validation, groups or ["all"] * len(validation), console)


class StageRun:
    """One stage while it runs: the objects that belong together, and what is done with them."""

    def __init__(
        self,
        name: str,
        decoder: Decoder,
        documents: Sequence[Document],
        config: StageConfig,
        folder: Path,
        runtime: RuntimeConfig,
        files: ParameterFiles,
        meter: MemoryMeter,
    ) -> None:
        self.name, self.decoder, self.documents, self.config = name, decoder, documents, config
        self.folder, self.runtime, self.files, self.meter = folder, runtime, files, meter
        self.checkpoints = folder / "checkpoints"
        self.parameters = sum(p.numel() for p in decoder.parameters())
        decoder.recompute = config.recompute
        self.engine = make_engine(decoder, config, runtime)
        self.trained = sum(getattr(p, "ds_numel", p.numel()) for p in decoder.parameters() if p.requires_grad)
        self.progress = Progress()
        self.best: State = {}
        self.saved: tuple[int, int | None] | None = None
        self.largest = 0

    def run(
        self, validation: Sequence[Document], groups: Sequence[str], console: Console
    ) -> tuple[TrainingResult, State]:
        config, engine, runtime = self.config, self.engine, self.runtime
        self.folder.mkdir(parents=True, exist_ok=True)
        messages: list[str] = []
        resumed = self._resume(messages.append)
        progress = self.progress
        architecture = self.decoder.architecture
        stream = open_stream(self.documents, config, architecture, self.name, progress.packs_per_step)
        progress.packs_per_step = stream.packs_per_step
        if (idle := engine.world - stream.packs_per_step) > 0:
            messages.append(f"{self.name}: steps of {stream.packs_per_step} packs leave {idle} ranks without work")
        if progress.position:
            stream.load_state(progress.position)
        self.budget = budget = min(config.token_budget, config.max_epochs * stream.tokens_per_epoch)
        torch.manual_seed(config.seed)
        self.decoder.train()
        try:
            with contextlib.ExitStack() as stack:
                enter = stack.enter_context
                enter(returning_memory(self.decoder.device, config.recompute))
                self.telemetry = enter(self._telemetry(budget, console, resumed))
                self.signals = enter(StopSignals(runtime.timeout_minutes, self.telemetry.stopping))
                self.writer = enter(CheckpointWriter(self.checkpoints, self.files, runtime.checkpoints))
                batches = enter(Prefetcher(stream, pin=self.decoder.device.type == "cuda"))
                for text in messages:
                    self.telemetry.event("warning", text)
                if resumed:
                    self.telemetry.event("resumed", f"{self.name}: going on after step {progress.step}")
                self.meter.reset_peak()
                clock = SaveClock(runtime.checkpoints, progress.step)
                while True:
                    if self._validation_due(budget):
                        self._validate(validation, groups)
                    if progress.tokens >= budget or progress.waited >= config.patience:
                        self._save()
                        break
                    if self.signals.save_agreed() or clock.steps_due(progress.step):
                        self._save()
                        clock.reset(progress.step)
                    self._step(batches, budget)
                    if self.signals.asked(save=engine.rank == 0 and clock.minutes_due()):
                        self._stop()
                    self._tell_warnings()
        except Stopped as stopped:
            # torchrun ends the others half a minute after the first has left: nobody does before all is written.
            distributed.barrier()
            self._refuse_unsaved(stopped)
            raise
        self._tell_warnings()
        if self.signals.late():
            raise Stopped(self.signals.name, progress.step)
        self._restore_best()
        return self._result(stream), self.best

    def _refuse_unsaved(self, stopped: Stopped) -> None:
        """Raise UserError where the last checkpoint of a run that is stopped could not be written."""
        self._tell_warnings()
        if self.writer.failed:
            hint = "Free some space; the same command goes on from the newest checkpoint that is there."
            problem = f"stopped by {stopped.name}, but the checkpoint of step {stopped.step} could not be written"
            raise UserError(problem, where=self.checkpoints, hint=hint) from None

    def _step(self, batches: Prefetcher, budget: int) -> None:
        progress, config = self.progress, self.config
        before = time.perf_counter()
        micro = batches.step()
        wait = time.perf_counter() - before
        rate = learning_rate(progress.scheduled / budget, config)
        self._track_largest(micro)
        done = train_step(self.decoder, self.engine, micro, rate, step=progress.step, stop=self.signals.asked)
        self.engine.forward_context = contextlib.nullcontext
        if done is None:
            self._stop()
            return
        facts = micro[0].step
        progress.step += 1
        progress.tokens += facts.tokens
        progress.supervised += done.supervised
        progress.position = batches.state()
        self._count(done, micro)
        self.telemetry.step(
            step=progress.step,
            epoch=facts.epoch,
            tokens=progress.tokens,
            step_tokens=facts.tokens,
            supervised=done.supervised,
            loss=done.loss,
            learning_rate=rate,
            grad_norm=done.grad_norm,
            skipped=done.skipped,
            flops=self._flops(facts),
            wait=wait,
            batch=facts.fingerprint,
        )

    def _count(self, done: StepResult, micro: Sequence[MicroBatch]) -> None:
        """Go on with the schedule after a step that was made; give up after too many that were not."""
        progress, facts = self.progress, micro[0].step
        if not done.skipped:
            progress.scheduled += facts.tokens
            progress.skipped_batches.clear()
            progress.recent.append(done.loss)
            return
        progress.skipped += 1
        if facts.weight_sum == 0:  # nothing to learn from is no failure
            return
        names = [self.documents[index].name for pack in facts.packs for index in pack]
        progress.skipped_batches.append({"step": progress.step, "epoch": facts.epoch, "documents": names})
        if len(progress.skipped_batches) < self.runtime.max_skipped_steps:
            return
        where = self.folder / SKIPPED
        if self.engine.rank == 0:
            write_atomic(where, json.dumps(progress.skipped_batches, indent=1) + "\n")
        problem = f"loss or gradients are not finite {len(progress.skipped_batches)} steps in a row"
        hint = f"Lower {self.name}.learning_rate, or look at these documents."
        raise UserError(f"{problem} (documents {', '.join(names[:3])} …)", where=where, hint=hint)

    def _validation_due(self, budget: int) -> bool:
        progress = self.progress
        if progress.validated is None or progress.tokens - progress.validated >= self.config.validate_every:
            return True
        return progress.tokens >= budget and progress.tokens > progress.validated

    def _validate(self, documents: Sequence[Document], groups: Sequence[str]) -> None:
        progress, telemetry = self.progress, self.telemetry
        with telemetry.paused():
            found = validate(self.engine, documents, self.config.pack_tokens, groups, self.signals.asked)
            if found is None:
                self._stop()
                return
            whole = overall(found)
            recent = sum(progress.recent) / len(progress.recent) if progress.recent else None
            phases = {name: loss.mean for name, loss in found.items()} if len(found) > 1 else {}
            progress.curve.append(
                {
                    "step": progress.step,
                    "tokens": progress.tokens,
                    "train_loss": recent,
                    "validation_loss": whole.mean,
                    "phases": phases,
                }
            )
            progress.recent.clear()
            progress.validated = progress.tokens
            best = progress.record_validation(whole.mean)
            telemetry.validation(
                step=progress.step,
                tokens=progress.tokens,
                loss=whole.mean,
                perplexity=whole.perplexity,
                phases=phases,
                best=best,
            )
            if best:
                self.best = self.engine.parameters()
                self._save(self.best)

    def _save(self, parameters: State | None = None) -> None:
        """Hand a copy of everything to the thread that writes it; every rank must call it."""
        progress, engine = self.progress, self.engine
        saved = self.saved == (progress.step, progress.validated)
        if saved and not distributed.agreed(self.writer.failed):
            return
        with self.telemetry.paused():
            parameters = engine.parameters() if parameters is None else parameters
            optimizer = engine.optimizer_state()
        self.saved = (progress.step, progress.validated)
        if engine.rank:
            return
        progress.seconds = self.telemetry.seconds
        last = progress.curve[-1] if progress.curve else {}
        loss = last["validation_loss"] if last.get("step") == progress.step else None
        state = {
            "progress": json.loads(json.dumps(progress.as_dict())),  # a copy that training does not change
            "validation_loss": loss if loss is not None and math.isfinite(loss) else None,
            "config": self.config.model_dump(mode="json"),
            "written_by": {"engine": self.runtime.engine, "ranks": engine.world},
        }
        self.writer.put(Checkpoint(state, parameters, optimizer))
        self.telemetry.event("checkpoint", "", step=progress.step)

    def _stop(self) -> None:
        """Save where the last whole step left everything, and end the run. Raises Stopped."""
        self._save()
        self.telemetry.event("stopped", f"{self.name}: stopped by {self.signals.name}, saving", step=self.progress.step)
        raise Stopped(self.signals.name, self.progress.step)

    def _resume(self, warn: Any) -> bool:
        if self.engine.rank == 0:
            remove_leftovers(self.checkpoints)
            if self.runtime.resume == "never":
                set_aside(self.checkpoints)
        distributed.barrier()
        found = find_newest(self.checkpoints, self.files, warn)
        if found is None:
            return False
        check_same(found, self.config, self.name, self.checkpoints)
        self.progress = Progress(**found.state["progress"])
        self.engine.load(found.parameters, found.optimizer)
        self.saved = (self.progress.step, self.progress.validated)
        best = find_best(self.checkpoints, self.files, self.progress, found, warn)
        if self.engine.rank == 0:
            self.best = dict(best)
        return True

    def _telemetry(self, budget: int, console: Console, resumed: bool) -> Telemetry:
        progress, active = self.progress, self.engine.rank == 0
        stand = progress.step if resumed else None
        return Telemetry(
            self.name,
            budget=budget,
            folder=self.folder,
            console=console,
            peak=find_peak(self.decoder.device, self.decoder.dtype, self.runtime.peak_tflops),
            active=active,
            loggers=open_loggers(self.runtime, self.name, self.folder, step=stand) if active else (),
            tokens=progress.tokens,
            seconds=progress.seconds,
            step=progress.step,
            keep_until=stand,
            devices=self.engine.world,
        )

    def _track_largest(self, micro: Sequence[MicroBatch]) -> None:
        """Count what a forward pass keeps, where a pack is larger than all before."""
        largest = max(batch.pack.tokens for batch in micro)
        if largest > 1.05 * self.largest:
            self.largest = largest
            self.engine.forward_context = self.meter.track_activations

    def _flops(self, facts: StepInfo) -> Flops:
        full = self.config.method == "full"
        return step_flops(
            self.decoder.architecture,
            [[len(self.documents[i]) for i in pack] for pack in facts.packs],
            facts.supervised,
            adapter=0 if full else self.trained,
            full=full,
            recompute=self.config.recompute,
        )

    def _tell_warnings(self) -> None:
        for text in self.writer.warnings():
            self.telemetry.event("warning", text)

    def _restore_best(self) -> None:
        if not distributed.agreed(bool(self.best)):  # no validation was finite, or the best one's files are gone
            self.best = self.engine.parameters()
        else:
            shapes = {name: getattr(p, "ds_shape", p.shape) for name, p in self.engine.live.items()}
            self.engine.load(distributed.Shared(self.best, shapes), None)

    def _result(self, stream: PackStream) -> TrainingResult:
        progress, config, engine = self.progress, self.config, self.engine
        held, weights = engine.static_memory(), weight_memory(self.decoder)
        split = self.meter.split(
            weights=weights.bytes, adapters=held.adapters, gradients=held.gradients, optimizer=held.optimizer
        )
        best = next((p for p in progress.curve if p["step"] == progress.best_step), {})
        result = TrainingResult(
            name=self.name,
            method=config.method,
            parameters=self.parameters,
            trainable=self.trained,
            token_budget=config.token_budget,
            planned_tokens=self.budget,
            tokens=progress.tokens,
            supervised_tokens=progress.supervised,
            epochs=round(progress.tokens / stream.tokens_per_epoch, 3),
            steps=progress.step,
            skipped_steps=progress.skipped,
            seconds=round(self.telemetry.seconds, 2),
            tokens_per_second=round(progress.tokens / max(self.telemetry.seconds, 1e-9), 1),
            stopped=progress.ended_by(config),
            validation_before=progress.curve[0]["validation_loss"],
            validation_best=progress.best_loss,
            best_step=progress.best_step,
            phases={name: with_perplexity(mean) for name, mean in best.get("phases", {}).items()},
            engine=self._engine_name(),
            ranks=engine.world,
            data=stream.describe(),
            speed=self.telemetry.summary(),
            memory=split.as_dict(),
            curve=progress.curve,
        )
        self.decoder.eval()
        engine.close()
        return result

    def _engine_name(self) -> str:
        runtime = self.runtime
        return "torch" if runtime.engine == "torch" else f"deepspeed, ZeRO stage {runtime.zero_stage}"
