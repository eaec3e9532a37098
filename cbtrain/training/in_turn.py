"""Several stages over one base, trained in turn: each as if it were alone, with its own adapter, optimizer, stream of
packs, checkpoints and end.

With ``joint`` the steps of several stages are one pass through the base (:mod:`cbtrain.training.joint`), and equal to
rounding. Else nothing that a step depends on is shared but the frozen base: dropout draws from keys of its own
(:mod:`cbtrain.model.adapters.dropout`), packs from the stage's seed, and no other random number is drawn. So on CPUs a
stage comes to the same bits as by :func:`cbtrain.training.loop.train`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console

from cbtrain.errors import Stopped, UserError
from cbtrain.model.adapters.in_turn import AdaptersInTurn
from cbtrain.model.adapters.lora import LoraAdapter
from cbtrain.training.engines.engine import State
from cbtrain.training.joint import Task, joint_obstacle, train_jointly
from cbtrain.training.loop import conclude
from cbtrain.training.memory.malloc import gives_back, returning_memory
from cbtrain.training.memory.meter import MemoryMeter
from cbtrain.training.result import TrainingResult
from cbtrain.training.signals import StopSignals
from cbtrain.training.stage import Stage
from cbtrain.training.stage_run import StageRun
from cbtrain.training.telemetry.status import Status


@dataclass(slots=True)
class Seat:
    """One stage among several: its run, its adapter, why this is not computed with others in one pass (None: it is,
    if that is asked for), and what is open for it. ``name`` is what it is called."""

    name: str
    run: StageRun
    adapter: LoraAdapter
    obstacle: str | None
    opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def status(self) -> Status:
        return self.run.telemetry.status

    @property
    def levels(self) -> str | tuple[str, ...]:
        """What its layers compute again."""
        return self.run.stage.levels_now


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Called when a stage has ended: ``done`` with what :func:`cbtrain.training.loop.train` returns, its adapter being
    the decoder's; ``failed`` with what was wrong. The others go on."""

    done: Callable[[str, TrainingResult, State], None]
    failed: Callable[[str, UserError], None]


class StagesInTurn:
    """Enter it, :meth:`add` the stages, :meth:`train` them. ``meter`` measures all of them together."""

    def __init__(
        self,
        adapters: AdaptersInTurn,
        console: Console,
        meter: MemoryMeter,
        timeout_minutes: float = 30.0,
        *,
        joint: bool = False,
    ) -> None:
        self.joint = joint
        self.adapters, self.console, self.meter = adapters, console, meter
        self.signals = StopSignals(timeout_minutes, self._tell_all)
        self.seats: list[Seat] = []
        """Those that have not ended."""
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> StagesInTurn:
        self._opened.enter_context(self.signals)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for seat in self.seats:  # after an error only: each has its checkpoints
            seat.opened.__exit__(kind, error, trace)
        self._opened.__exit__(kind, error, trace)

    def add(self, name: str, stage: Stage, adapter: LoraAdapter) -> Seat:
        """Add ``stage``, whose ``adapter`` is the decoder's now; with ``runtime.resume=auto`` it continues from its
        newest checkpoint. Raises UserError as :class:`~cbtrain.training.stage.StageState`."""
        stage.folder.mkdir(parents=True, exist_ok=True)
        run = StageRun(stage, self.console, self.meter, name)
        seat = Seat(name, run, adapter, joint_obstacle(stage.decoder, adapter, stage.settings.pack_tokens))
        seat.run.signals.heard = self.signals.heard
        seat.opened.enter_context(seat.run.open())
        if seat.run.state.resumed and (told := self._how_it_continues(seat)):
            seat.run.telemetry.event("joint", f"{stage.name}: {told}")
        seat.run.telemetry.wait()
        self.seats.append(seat)
        return seat

    def _how_it_continues(self, seat: Seat) -> str:
        """Return in what the next steps of a resumed stage differ from those before; nothing if they do not."""
        before, steps = seat.run.progress.joint_steps, seat.run.progress.step
        if self.joint and seat.obstacle is None:
            alone = steps - before
            return f"{alone} of {steps} steps were computed alone, the next are joint" if alone else ""
        text = f"{before} of {steps} steps were joint (equal up to rounding), the next are computed alone"
        return text if before else ""

    def train(self, outcomes: Outcomes, after_turn: Callable[[], None] = lambda: None) -> None:
        """Train all stages to their ends. ``after_turn`` is called after every turn, in which each of the stages that
        have fewer tokens than the others makes a step.

        Raises Stopped when a signal came, after every stage has saved its state, and UserError if one of them could
        not.
        """
        device = self.adapters.decoder.device
        level = next((level for level in (seat.levels for seat in self.seats) if gives_back(device, level)), "none")
        with returning_memory(device, level):
            try:
                while self.seats:
                    self._take_turn(outcomes)
                    after_turn()
                if self.signals.heard:  # the last stage has ended meanwhile
                    raise Stopped(self.signals.heard)
            except Stopped as stopped:
                self._save_all(stopped)
                raise

    def _take_turn(self, outcomes: Outcomes) -> None:
        ready = []
        for seat in behind(self.seats):
            try:
                with self.turn_of(seat):
                    if seat.run.next_step_due():
                        ready.append(seat)
                    else:
                        self._end(seat, outcomes)
            except UserError as error:
                self._drop(seat, error, outcomes)
        for seat, problem in self.make_steps(ready):
            self._drop(seat, problem, outcomes)
        if self.signals.asked():
            raise Stopped(self.signals.name)

    def make_steps(self, seats: Sequence[Seat]) -> list[tuple[Seat, UserError]]:
        """Make the next optimizer step of each of ``seats``. Return those that failed, with what is wrong: too many
        steps in a row that were not finite. Raises Stopped if a signal came in the middle of a step.

        One after another, so each computes what it would compute alone, to the bit; with ``joint`` those that can be
        computed together are.
        """
        groups = self._together(seats)
        failed = [failure for group in groups for failure in self._step_jointly(group)]
        for seat in (seat for seat in seats if not any(seat in group for group in groups)):
            try:
                with self.turn_of(seat):
                    seat.run.step()
                    seat.run.stop_if_asked()
                    seat.run.tell_warnings()
            except UserError as error:
                failed.append((seat, error))
        return failed

    def _together(self, seats: Sequence[Seat]) -> list[list[Seat]]:
        """Return groups of ``seats`` whose steps are made together: several each, with the same recomputation."""
        groups: dict[str | tuple[str, ...], list[Seat]] = {}
        for seat in seats if self.joint else ():
            if seat.obstacle is None:
                groups.setdefault(seat.levels, []).append(seat)
        return [group for group in groups.values() if len(group) > 1]

    def why_alone(self, seat: Seat) -> str | None:
        """Return why no step of ``seat`` is made with those of the others that are here, or None."""
        others = [other for other in self.seats if other is not seat and other.obstacle is None]
        if seat.obstacle or any(other.levels == seat.levels for other in others):
            return seat.obstacle
        return "no other run has the same activation_checkpointing" if others else "there is no other run to join"

    def _step_jointly(self, seats: Sequence[Seat]) -> list[tuple[Seat, UserError]]:
        self.adapters.clear()
        with contextlib.ExitStack() as clocks:
            for seat in seats:
                clocks.enter_context(seat.run.telemetry.turn())
            works = [seat.run.next_work() for seat in seats]
            seats[0].run.take_turn()
            tasks = [
                Task(seat.adapter, seat.run.engine, work.batches, work.rate)
                for seat, work in zip(seats, works, strict=True)
            ]
            outcomes = train_jointly(self.adapters.decoder, tasks, stop=self.signals.asked)
        failed = []
        for seat, work, outcome in zip(seats, works, outcomes, strict=True):
            try:
                with self.turn_of(seat):
                    seat.run.finish_step(work, outcome, joint=True)
                    seat.run.tell_warnings()
            except UserError as error:
                failed.append((seat, error))
        return failed

    @contextlib.contextmanager
    def turn_of(self, seat: Seat) -> Iterator[None]:
        """Inside, the decoder has the adapter of ``seat``, and its clock runs."""
        self.adapters.take(seat.adapter)
        seat.run.take_turn()
        with seat.run.telemetry.turn():
            yield

    def _end(self, seat: Seat, outcomes: Outcomes) -> None:
        """Leave the stage with its last checkpoint on disk, and hand on its result."""
        seat.opened.close()
        seat.run.tell_warnings()
        self.seats.remove(seat)
        outcomes.done(seat.name, *conclude(seat.run))

    def _drop(self, seat: Seat, error: UserError, outcomes: Outcomes) -> None:
        if seat in self.seats:
            self.seats.remove(seat)
            seat.opened.__exit__(type(error), error, None)
        outcomes.failed(seat.name, error)

    def _save_all(self, stopped: Stopped) -> None:
        """Save the state of every stage that has not ended. Raises UserError if one could not be written."""
        for seat in self.seats:
            with contextlib.suppress(Stopped), self.turn_of(seat):
                if not seat.run.stopped:
                    seat.run.stop()
        stages, self.seats = self.seats, []
        for seat in stages:
            seat.opened.__exit__(type(stopped), stopped, None)
        for seat in stages:
            seat.run.refuse_unsaved(stopped)

    def _tell_all(self, name: str) -> None:
        for seat in self.seats:
            seat.run.signals.heard = name
            seat.run.telemetry.stopping(name)


def behind(seats: Sequence[Seat]) -> list[Seat]:
    """Return those of ``seats`` that are not ahead of the slowest by a step of their own or more: so all see about as
    many tokens, whatever the size of their steps, and of several that are resumed the last catch up first."""
    least = min(seat.run.progress.tokens for seat in seats)
    return [
        seat
        for seat in seats
        if seat.run.progress.tokens - least <= seat.run.progress.tokens / max(seat.run.progress.step, 1)
    ]
