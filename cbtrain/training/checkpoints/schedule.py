"""When the next checkpoint is due."""

from __future__ import annotations

import time

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
