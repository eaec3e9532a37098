"""Progress of a training stage: ``metrics.jsonl`` always, a display in a terminal or plain lines otherwise, and the
loggers that a user asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from cbtrain.training.memory.now import memory_now
from cbtrain.training.telemetry import wording
from cbtrain.training.telemetry.display import INDENT, Display
from cbtrain.training.telemetry.loggers import Logger, finite
from cbtrain.training.telemetry.metrics import MetricsFile
from cbtrain.training.telemetry.records import StepRecord, ValidationRecord
from cbtrain.training.telemetry.speed import Sample, Speed, Speedometer
from cbtrain.training.telemetry.status import Status

LINE_SECONDS = 30.0
LINES = 10
"""Without a terminal: a line after so many seconds, and at least so many lines, evenly over the budget."""

STEPS_TO_TELL_BY, LONG_SECONDS = 10, 120.0
"""After so many steps a run that needs longer than that says how long."""


class Telemetry:
    """Records and shows the progress of the training stage that ``status`` describes.

    With ``resumed``, metrics up to the step of ``status`` are kept and later ones dropped; otherwise the file is new.
    With ``active=False`` (ranks other than 0) it measures, but writes and shows nothing. A stage with a ``label`` is
    one of several that take turns: their progress is shown together elsewhere, here only events, with the label.
    """

    def __init__(
        self,
        status: Status,
        folder: Path,
        console: Console,
        speedometer: Speedometer,
        *,
        active: bool = True,
        resumed: bool = False,
        loggers: Sequence[Logger] = (),
    ) -> None:
        self.status, self.console, self.active = status, console, active
        self.loggers = list(loggers) if active else []
        self._speedometer = speedometer
        self._clock = _Clock(status.seconds)
        self._stepped = status.seconds
        self._file = MetricsFile(folder, status.step if resumed else None) if active else None
        self._live = active and console.is_terminal and not console.is_dumb_terminal
        self._display = Display(self.status, console) if self._live and not status.label else None
        self._line_at, self._lines = 0.0, 0
        self._steps = 0

    def __enter__(self) -> Telemetry:
        self._clock.start()
        self._line_at, self._lines = time.perf_counter(), self._parts()
        if self._file:
            self._write("run", title=self.status.title, budget=self.status.budget, peak=self._speedometer.peak.name)
        if self._display:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = self.status
        status.seconds = self.seconds
        status.state = f"{'stopped after' if kind else 'in'} {wording.clock(status.seconds)}"
        if self._display:
            self._display.stop()
        if self._file:
            self._file.close()
        for logger in self.loggers:
            self._guarded(logger, logger.close)

    def stopping(self, name: str) -> None:
        """Show that signal ``name`` was heard, before it can be obeyed."""
        self.status.state = "stopping; Ctrl-C: at once" if name == "SIGINT" else "stopping"

    @property
    def seconds(self) -> float:
        """Seconds of training so far, earlier parts of a resumed run included, without those in :meth:`paused`."""
        return self._clock.seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock during the body, e.g. for a validation or a checkpoint."""
        self._clock.stop()
        try:
            yield
        finally:
            self._clock.start()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let the clock run during the body only, of a stage that takes turns: :meth:`wait` has stopped it."""
        self._clock.start()
        try:
            yield
        finally:
            self._clock.stop()

    def wait(self) -> None:
        """Stop the clock until the next :meth:`turn`."""
        self._clock.stop()

    def step(self, record: StepRecord) -> None:
        """Record one optimizer step."""
        now = self.seconds
        duration, self._stepped = now - self._stepped, now
        sample = Sample(duration, record.step_tokens, record.supervised, record.flops, record.wait)
        speed = self._speedometer.add(sample)
        if not self.active:
            return
        status = self.status
        status.step, status.epoch, status.tokens, status.loss = record.step, record.epoch, record.tokens, record.loss
        status.learning_rate, status.grad_norm, status.speed = record.learning_rate, record.grad_norm, speed
        status.memory, status.seconds = memory_now(), now
        status.left = self._left(speed)
        if not record.skipped:
            status.smoothed.add(record.loss)
            status.curve.add(record.loss)
        numbers = self._numbers(duration, record.wait)
        counts = {"tokens": record.tokens, "step_tokens": record.step_tokens, "supervised": record.supervised}
        losses = {"loss": record.loss, "learning_rate": record.learning_rate, "grad_norm": record.grad_norm}
        batch = {"skipped": record.skipped, "batch": record.batch}
        told = {"pairs": dict(record.pairs)} if record.pairs else {}
        self._write("step", epoch=record.epoch, **counts, **losses, **told, **batch, **numbers)
        self._log(record.step, "pairs", record.pairs)
        self._log(record.step, "train", {**losses, "epoch": record.epoch, "tokens": record.tokens})
        self._log(record.step, "speed", numbers)
        self._steps += 1
        if self._steps == STEPS_TO_TELL_BY and not status.label:
            self._tell_time_left()
        self._line()

    def validation(self, record: ValidationRecord) -> None:
        """Record a validation."""
        status = self.status
        loss, phases, pairs = record.measured.loss, record.measured.phases, record.measured.pairs
        status.step, status.tokens, status.validation = record.step, record.tokens, loss
        if record.best or status.best is None:
            status.best, status.best_accuracy = loss, pairs.get("accuracy")
        status.accuracy = pairs.get("accuracy")
        if not self.active:
            return
        losses = {"loss": loss} if pairs else {"loss": loss, "perplexity": record.perplexity}
        told = {"pairs": dict(pairs)} if pairs else {}
        self._write("validation", tokens=record.tokens, **losses, phases=dict(phases), **told, best=record.best)
        by_phase = {f"loss_{name}": value for name, value in phases.items()}
        self._log(record.step, "validation", {**losses, **by_phase})
        self._log(record.step, "validation_pairs", pairs)
        self._say(wording.validation_line(status, record))

    def event(self, kind: str, text: str, **fields: Any) -> None:
        """Record something that happened (``checkpoint``, ``resumed``, ``stopped``, ``warning`` …) and print ``text``
        if there is any. Works after the end of the run too."""
        if not self.active:
            return
        self._write(kind, text=text, **fields)
        if text:
            self._say(f"Warning: {text}" if kind == "warning" else text, "yellow" if kind == "warning" else "")

    def summary(self) -> dict[str, Any]:
        """Return the speed of this run, all ranks together, over all its steps but the first, which warms up.

        ``tokens_per_second``, ``supervised_tokens_per_second``, ``mfu``, ``hfu`` and ``input_wait_share`` are over the
        whole time, pauses left out; ``median_tokens_per_second`` and ``step_seconds`` are of single steps. ``seconds``
        are those of training, the first step and earlier parts of a resumed run included; ``memory_gb`` is the last
        step's.
        """
        memory = self.status.memory
        return {
            **self._speedometer.summary(),
            "seconds": round(self.seconds, 2),
            "memory_gb": round(memory.used, 3) if memory else None,
        }

    def _numbers(self, duration: float, wait: float) -> dict[str, Any]:
        """Return time and memory for a step's line: speeds are over the window, ``input_wait`` is the step's own."""
        status = self.status
        speed, memory = status.speed, status.memory
        assert speed is not None
        assert memory is not None
        numbers = {
            "seconds": round(status.seconds, 3),
            "step_seconds": round(duration, 4),
            "tokens_per_second": round(speed.tokens_per_second, 1),
            "supervised_tokens_per_second": round(speed.supervised_tokens_per_second, 1),
            "mfu": round(speed.mfu, 5),
            "hfu": round(speed.hfu, 5),
            "memory_gb": round(memory.used, 3),
            "input_wait": round(wait, 4),
        }
        return numbers if memory.reserved is None else {**numbers, "memory_reserved_gb": round(memory.reserved, 3)}

    def _left(self, speed: Speed) -> float | None:
        """Return the seconds until the budget is used up, with the same share of pauses as so far."""
        if speed.tokens_per_second <= 0:
            return None
        rest = max(0, self.status.budget - self.status.tokens)
        return rest / speed.tokens_per_second * self._clock.stretch

    def _tell_time_left(self) -> None:
        """Say once how long the run will take if that is long: for who wants to stop it, or to leave."""
        left = self.status.left
        if left is not None and left >= LONG_SECONDS:
            self.event("time_left", wording.time_left(self.status), left=round(left))

    def _line(self) -> None:
        """Print a line if there is no terminal and one is due."""
        if self._live or self.status.label:
            return
        now, parts = time.perf_counter(), self._parts()
        if now - self._line_at >= LINE_SECONDS or parts > self._lines:
            self._line_at, self._lines = now, parts
            self._say(wording.step_line(self.status))

    def _parts(self) -> int:
        """Return how many parts of the budget, one line each, are done."""
        return int(self.status.share * LINES)

    def _say(self, text: str, style: str = "") -> None:
        if self.status.label:
            text = f"{self.status.label}: {text.removeprefix(f'{self.status.title}: ')}"
        if self._live:  # wrapped at words under the indent; a file takes the line as it is
            self.console.print(Padding(Text(text, style), (0, 0, 0, INDENT)))
        else:
            self.console.print(" " * INDENT + text, highlight=False, markup=False, soft_wrap=True)

    def _write(self, kind: str, **record: Any) -> None:
        if self._file:
            self._file.write({"kind": kind, "step": self.status.step, "seconds": round(self.seconds, 3), **record})

    def _log(self, step: int, group: str, values: Mapping[str, Any]) -> None:
        named = {f"{group}/{name}": value for name, value in finite(values).items()}
        for logger in list(self.loggers) if named else ():
            self._guarded(logger, lambda logger=logger: logger.log(step, named))

    def _guarded(self, logger: Logger, call: Any) -> None:
        """Call ``call``; if the service fails, drop ``logger`` and continue the run."""
        try:
            call()
        except Exception as error:
            self.loggers.remove(logger)
            self.event(
                "warning", f"{logger.name} failed; nothing more is logged to it ({type(error).__name__}: {error})"
            )


class _Clock:
    """Seconds of training; ``stretch`` is all time since the start over that of training."""

    def __init__(self, before: float) -> None:
        self.before = before
        self._started: float | None = None
        self._since: float | None = None
        self._run = 0.0
        self._stops = 0

    def start(self) -> None:
        now = time.perf_counter()
        if self._started is None:
            self._started = now
        self._stops = max(0, self._stops - 1)
        if self._stops == 0 and self._since is None:
            self._since = now

    def stop(self) -> None:
        self._stops += 1
        if self._since is not None:
            self._run += time.perf_counter() - self._since
            self._since = None

    @property
    def seconds(self) -> float:
        return self.before + self._own

    @property
    def stretch(self) -> float:
        if self._started is None or self._own <= 0:
            return 1.0
        return (time.perf_counter() - self._started) / self._own

    @property
    def _own(self) -> float:
        return self._run + (time.perf_counter() - self._since if self._since is not None else 0.0)
