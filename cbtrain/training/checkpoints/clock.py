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

    def due(self, step: int) -> bool:
        """True once, until it is reset: the other ranks hear of it later."""
        steps, minutes = self.config.every_steps, self.config.every_minutes
        late = minutes is not None and time.monotonic() - self.time >= 60 * minutes
        due = not self.proposed and (late or (steps is not None and step - self.step >= steps))
        self.proposed = self.proposed or due
        return due
