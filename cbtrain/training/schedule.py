"""The learning rate as a function of progress."""

from __future__ import annotations

import math

from cbtrain.training.config import StageConfig


def learning_rate(progress: float, config: StageConfig) -> float:
    """Return the rate at ``progress`` in [0, 1]: linear warm-up, then constant, linear or cosine decay."""
    if progress < config.warmup:
        # The first step must move: progress is the share of tokens *before* the step.
        return config.learning_rate * max(progress, 0.02 * config.warmup) / config.warmup
    done = min(1.0, (progress - config.warmup) / (1 - config.warmup))
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "linear":
        return config.learning_rate * (1 - done)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
