"""A stage while it runs: its resources, opened together, and each action of the loop."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console

from cbtrain.errors import Stopped, UserError
from cbtrain.files import write_atomic
from cbtrain.model.methods import method_named
from cbtrain.tokens.prefetch import Prefetcher
from cbtrain.tokens.stream import MicroBatch, StepInfo
from cbtrain.training import distributed
from cbtrain.training.checkpoints.writer import CheckpointWriter, SaveClock
from cbtrain.training.engines.engine import State
from cbtrain.training.flops import Flops, Training, step_flops
from cbtrain.training.memory.malloc import returning_memory
from cbtrain.training.memory.meter import MemoryMeter
from cbtrain.training.packs import open_stream
from cbtrain.training.pair_validation import validate_pairs
from cbtrain.training.progress import Measured, learning_rate
from cbtrain.training.signals import StopSignals
from cbtrain.training.stage import Stage, StageState
from cbtrain.training.step import StepResult, train_step
from cbtrain.training.telemetry.loggers import open_loggers
from cbtrain.training.telemetry.peak import find_peak
from cbtrain.training.telemetry.records import StepRecord, ValidationRecord
from cbtrain.training.telemetry.speed import Speedometer
from cbtrain.training.telemetry.status import Status
from cbtrain.training.telemetry.telemetry import Telemetry
from cbtrain.training.validation import overall, validate

SKIPPED = "skipped.json"
"""Lists the documents of non-finite steps, written when a run is ended because of them."""


@dataclass(frozen=True, slots=True)
class Work:
    """The micro-batches of this rank in one optimizer step, its learning ``rate``, and how long (seconds) it had to
    ``wait`` for them."""

    batches: list[MicroBatch]
    rate: float
    wait: float


class StageRun:
    """One stage, ``resumed`` or from its beginning; the loop calls its methods inside :meth:`open`.

    ``budget`` is the number of tokens after which it ends. ``trained`` counts the parameters that are updated.
    With a ``label`` it is one of several stages over one decoder (:mod:`.in_turn`), and is told of signals: its adapter
    must be the decoder's whenever a method of it is called.
    """

    def __init__(self, stage: Stage, console: Console, meter: MemoryMeter, label: str = "") -> None:
        self.stage, self.settings, self.meter, self.label = stage, stage.settings, meter, label
        self.take_turn()
        self.parameters = sum(p.numel() for p in stage.decoder.parameters())
        self.state = StageState(stage)
        self.trained = sum(getattr(p, "ds_numel", p.numel()) for p in stage.decoder.parameters() if p.requires_grad)
        self.how = self._how()
        self.progress, self.engine = self.state.progress, self.state.engine
        architecture, planned = stage.decoder.architecture, self.progress.packs_per_step
        self.stream = open_stream(stage.documents, self.settings, architecture, stage.name, planned)
        self.progress.packs_per_step = self.stream.packs_per_step
        if self.progress.position:
            self.stream.load_state(self.progress.position)
        self.budget = self.settings.tokens_in_all(self.stream.tokens_per_epoch)
        self.validate_every = self.settings.tokens_between_validations(self.stream.tokens_per_epoch)
        self.largest = 0
        """Tokens of the largest pack whose activations were counted."""
        self.telemetry = self._telemetry(console)
        self.signals = StopSignals(stage.runtime.timeout_minutes, self.telemetry.stopping)
        self.stopped = False
        """Whether a signal has ended it."""
        self.writer = CheckpointWriter(stage.checkpoints, stage.files, stage.runtime.checkpoints)
        self.batches = Prefetcher(self.stream, pin=stage.decoder.device.type == "cuda")
        self.clock = SaveClock(stage.runtime.checkpoints, self.progress.step)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Show progress, listen for signals, write checkpoints and prefetch packs until the body ends."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.telemetry)
            if not self.label:
                stack.enter_context(returning_memory(self.stage.decoder.device, self.stage.levels_now))
                stack.enter_context(self.signals)
            for part in (self.writer, self.batches):
                stack.enter_context(part)
            self._say_how_it_begins()
            self.meter.reset_peak()
            self.clock.reset(self.progress.step)
            yield

    def take_turn(self) -> None:
        """Set what this stage wants of the decoder, which others may have changed."""
        if not self.stage.decoder.training:
            self.stage.decoder.train()
        self.stage.decoder.activation_checkpointing = self.stage.levels_now

    def _say_how_it_begins(self) -> None:
        name, packs = self.stage.name, self.stream.packs_per_step
        for text in self.state.warnings:
            self.telemetry.event("warning", text)
        if (idle := self.engine.world - packs) > 0:
            self.telemetry.event("warning", f"{name}: steps of {packs} packs leave {idle} ranks without work")
        if self.state.resumed:
            self.telemetry.event("resumed", f"{name}: continuing after step {self.progress.step}")

    def _telemetry(self, console: Console) -> Telemetry:
        stage, progress, active = self.stage, self.progress, self.engine.rank == 0
        step = progress.step if self.state.resumed else None
        peak = find_peak(stage.decoder.device, stage.decoder.dtype, stage.runtime.peak_tflops)
        return Telemetry(
            Status(
                stage.name,
                self.budget,
                step=progress.step,
                tokens=progress.tokens,
                seconds=progress.seconds,
                label=self.label,
            ),
            stage.folder,
            console,
            Speedometer(peak, self.engine.world),
            active=active,
            resumed=self.state.resumed,
            loggers=open_loggers(stage.runtime, stage.name, stage.folder, step=step) if active else (),
        )

    def validation_due(self) -> bool:
        """Return whether to validate now: at the beginning, every ``validate_every`` tokens, and at the end; never if
        there is nothing to validate on."""
        progress = self.progress
        if not len(self.stage.validation):
            return False
        if progress.validated is None or progress.tokens - progress.validated >= self.validate_every:
            return True
        return progress.tokens >= self.budget and progress.tokens > progress.validated

    def validate(self) -> None:
        """Measure the loss on unseen documents; keep and save the parameters if it is the lowest so far. Raises
        Stopped if a signal came."""
        progress, telemetry = self.progress, self.telemetry
        with telemetry.paused():
            measured = self._measured()
            if measured is None:
                self.stop()
                return
            best = progress.record_validation(measured)
            telemetry.validation(ValidationRecord(progress.step, progress.tokens, measured, best))
            if best:
                self.state.best = self.engine.parameters()
                self.save(self.state.best)

    def _measured(self) -> Measured | None:
        """Return what the validation documents come to; None if a signal came meanwhile."""
        stage = self.stage
        if self.engine.objective.of_pairs:
            return validate_pairs(self.engine, stage.validation, self.settings.pack_tokens, self.signals.asked)
        groups = stage.groups or ["all"] * len(stage.validation)
        losses = validate(self.engine, stage.validation, self.settings.pack_tokens, groups, self.signals.asked)
        if losses is None:
            return None
        phases = {name: loss.mean for name, loss in losses.items()} if len(losses) > 1 else {}
        return Measured(overall(losses).mean, phases)

    def next_step_due(self) -> bool:
        """Do what is due between two steps: validate, save. Return whether another step follows; if none does, the last
        state is saved. Raises Stopped if a signal came."""
        if self.validation_due():
            self.validate()
        if self.finished():
            self.save()
            return False
        if self.checkpoint_due():
            self.save()
            self.clock.reset(self.progress.step)
        return True

    def finished(self) -> bool:
        return self.progress.tokens >= self.budget or self.progress.waited >= self.settings.patience

    def checkpoint_due(self) -> bool:
        """Return whether to save now: after ``every_steps`` steps, or if the leading rank has proposed it."""
        return self.signals.save_agreed() or self.clock.steps_due(self.progress.step)

    def save(self, parameters: State | None = None) -> None:
        """Give a copy of the state to the thread that writes it. Every rank must call this."""
        if self.state.is_saved() and not distributed.agreed(self.writer.failed):
            return
        with self.telemetry.paused():
            parameters = self.engine.parameters() if parameters is None else parameters
            optimizer = self.engine.optimizer_state()
        self.state.mark_saved()
        if self.engine.rank:
            return
        self.progress.seconds = self.telemetry.seconds
        self.writer.put(self.state.checkpoint(parameters, optimizer))
        self.telemetry.event("checkpoint", "", step=self.progress.step)

    def step(self) -> None:
        """Make one optimizer step on the next packs. Raises Stopped if a signal ends it before it is complete,
        UserError after too many non-finite steps."""
        work, step = self.next_work(), self.progress.step
        outcome = train_step(
            self.stage.decoder, self.engine, work.batches, work.rate, step=step, stop=self.signals.asked
        )
        self.finish_step(work, outcome)

    def next_work(self) -> Work:
        """Return the micro-batches of the next optimizer step, and its learning rate."""
        began = time.perf_counter()
        micro_batches = self.batches.step()
        wait = time.perf_counter() - began
        self._track_largest(micro_batches)
        return Work(micro_batches, learning_rate(self.progress.scheduled / self.budget, self.settings), wait)

    def finish_step(self, work: Work, outcome: StepResult | None, *, joint: bool = False) -> None:
        """Count and record what ``work`` has come to, which None says was not completed; ``joint`` says that it was
        computed with other runs. Raises as :meth:`step`."""
        self.engine.forward_context = contextlib.nullcontext
        if outcome is None:
            self.stop()
            return
        progress, info = self.progress, work.batches[0].step
        progress.advance(info, outcome, self.batches.state())
        progress.joint_steps += joint
        if not outcome.skipped:
            self.engine.advance(min(1.0, progress.scheduled / self.budget))
        self._give_up_after_too_many_skipped(info, outcome)
        self.telemetry.step(
            StepRecord(
                step=progress.step,
                epoch=info.epoch,
                tokens=progress.tokens,
                step_tokens=info.tokens,
                supervised=outcome.supervised,
                loss=outcome.loss,
                pairs=outcome.pairs,
                learning_rate=work.rate,
                grad_norm=outcome.grad_norm,
                skipped=outcome.skipped,
                flops=self._flops(info),
                wait=work.wait,
                batch=info.fingerprint,
            )
        )

    def _track_largest(self, micro_batches: Sequence[MicroBatch]) -> None:
        """Measure the activations of the next forward passes if a pack is larger than all before."""
        largest = max(batch.pack.tokens for batch in micro_batches)
        if largest > 1.05 * self.largest:
            self.largest = largest
            self.engine.forward_context = self.meter.track_activations

    def _give_up_after_too_many_skipped(self, info: StepInfo, outcome: StepResult) -> None:
        if not outcome.skipped or info.weight_sum == 0:  # nothing to learn from is no failure
            return
        skipped = self.progress.skipped_batches
        names = [self.stage.documents[index].name for pack in info.packs for index in pack]
        skipped.append({"step": self.progress.step, "epoch": info.epoch, "documents": names})
        if len(skipped) < self.stage.runtime.max_skipped_steps:
            return
        where = self.stage.folder / SKIPPED
        if self.engine.rank == 0:
            write_atomic(where, json.dumps(skipped, indent=1) + "\n")
        problem = f"loss or gradients are not finite {len(skipped)} steps in a row"
        hint = f"Lower {self.stage.name}.learning_rate, or look at these documents."
        raise UserError(f"{problem} (documents {', '.join(names[:3])} …)", where=where, hint=hint)

    def _how(self) -> Training:
        """Return what the operations of all steps depend on."""
        full, decoder = method_named(self.settings.method).trains_base, self.stage.decoder
        return Training(
            adapter=0 if full else self.trained,
            dense=decoder.adapter.dense_products if decoder.adapter else 0,
            full=full,
            share=decoder.trained_share if full else 1.0,
            activation_checkpointing=self.stage.levels_now,
            fused=decoder.fuses,
            pruned=decoder.savings.pruned,
        )

    def _flops(self, info: StepInfo) -> Flops:
        packs = [[len(self.stage.documents[index]) for index in pack] for pack in info.packs]
        hidden = int(sum(self.stream.documents.hidden[pack].sum() for pack in info.packs))
        return step_flops(self.stage.decoder.architecture, packs, info.supervised, self.how, hidden)

    def stop_if_asked(self) -> None:
        """Raise Stopped if a signal came. The leading rank proposes a checkpoint if ``every_minutes`` have passed."""
        if self.signals.asked(save=self.engine.rank == 0 and self.clock.minutes_due()):
            self.stop()

    def stop(self) -> None:
        """Save the state after the last complete step and raise Stopped."""
        self.save()
        self.stopped = True
        text = f"{self.stage.name}: stopped by {self.signals.name}, saving"
        self.telemetry.event("stopped", text, step=self.progress.step)
        raise Stopped(self.signals.name, self.progress.step)

    def tell_warnings(self) -> None:
        """Report warnings of the thread that writes checkpoints."""
        for text in self.writer.warnings():
            self.telemetry.event("warning", text)

    def refuse_unsaved(self, stopped: Stopped) -> None:
        """Raise UserError if the last checkpoint of a stopped run could not be written."""
        self.tell_warnings()
        if self.writer.failed:
            hint = "Free some space; the same command continues from the newest checkpoint."
            problem = f"stopped by {stopped.name}, but the checkpoint of step {stopped.step} could not be written"
            raise UserError(problem, where=self.stage.checkpoints, hint=hint) from None
