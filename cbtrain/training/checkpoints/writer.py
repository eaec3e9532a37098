"""When a checkpoint is due; write it in a thread while training continues, and remove old ones."""

from __future__ import annotations

import contextlib
import math
import queue
import shutil
import threading
import time
from pathlib import Path
from types import TracebackType

from cbtrain.training.checkpoints.checkpoint import (
    Checkpoint,
    DamagedCheckpoint,
    ParameterFiles,
    read_state,
    steps,
    write,
)
from cbtrain.training.config import CheckpointConfig


class SaveClock:
    """Counts steps and minutes since the last checkpoint, begun at ``step``."""

    def __init__(self, config: CheckpointConfig, step: int) -> None:
        self.config = config
        self.reset(step)

    def reset(self, step: int) -> None:
        self.step, self.time, self.proposed = step, time.monotonic(), False

    def steps_due(self, step: int) -> bool:
        """Return whether ``every_steps`` steps are done, the same on every rank."""
        return self.config.every_steps is not None and step - self.step >= self.config.every_steps

    def minutes_due(self) -> bool:
        """Return whether ``every_minutes`` have passed: True once until :meth:`reset`, as others learn it later."""
        minutes = self.config.every_minutes
        due = not self.proposed and minutes is not None and time.monotonic() - self.time >= 60 * minutes
        self.proposed = self.proposed or due
        return due


class CheckpointWriter:
    """Enter it to start the thread; leaving waits until everything is on disk.

    Only one checkpoint waits at a time: a slow disk slows training and does not fill the memory. If one cannot be
    written (a full disk, say), :meth:`warnings` returns a warning and training continues.
    """

    def __init__(self, folder: Path, files: ParameterFiles, config: CheckpointConfig) -> None:
        self.folder, self.files, self.config = folder, files, config
        self.failed = False
        """Whether the last checkpoint could not be written."""
        self._warnings: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._queue: queue.Queue[Checkpoint | None] = queue.Queue(1)
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)

    def __enter__(self) -> CheckpointWriter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()

    def put(self, checkpoint: Checkpoint) -> None:
        """Queue ``checkpoint`` for writing; its tensors must not change any more."""
        self._queue.put(checkpoint)

    def warnings(self) -> list[str]:
        """Return the warnings since the last call."""
        warnings = []
        with contextlib.suppress(queue.Empty):
            while True:
                warnings.append(self._warnings.get_nowait())
        return warnings

    def _work(self) -> None:
        while (checkpoint := self._queue.get()) is not None:
            try:
                write(self.folder, checkpoint, self.files)
                self.failed = False
                self._remove_old()
            except Exception as error:  # Rust code raises exceptions of its own
                if not self.failed:  # once for a disk that stays full, whatever the number of checkpoints
                    text = f"the checkpoint of step {checkpoint.step} could not be written: {error}"
                    self._warnings.put(f"{text}; training continues and tries again at each checkpoint")
                self.failed = True

    def _remove_old(self) -> None:
        """Keep the newest, and those with the lowest validation loss; of pairs of answers those with the fewest that
        are ranked wrongly."""
        checkpoints = steps(self.folder)
        losses: dict[Path, tuple[float, float]] = {}
        for path in checkpoints:
            try:
                state = read_state(path)
                loss, error = state.get("validation_loss"), state.get("validation_error", 0)
            except DamagedCheckpoint:
                continue
            if loss is not None and math.isfinite(loss):
                losses[path] = (error, loss)
        measured = [
            path for path in reversed(checkpoints) if path in losses
        ]  # the earlier of two equals, as in validation
        best = sorted(measured, key=lambda path: losses[path])[: self.config.keep_best]
        for path in checkpoints[self.config.keep_last :]:
            if path not in best:
                shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove incomplete checkpoints that killed writers have left in ``folder``."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
