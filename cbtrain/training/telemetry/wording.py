"""Numbers and lines as people read them."""

from __future__ import annotations

import math

from cbtrain.training.progress import Measured
from cbtrain.training.telemetry.records import ValidationRecord
from cbtrain.training.telemetry.status import Status

NONE = "–"


def clock(seconds: float | None) -> str:
    """Return ``0:42``, ``1:02:03``, ``2 d 03:04``."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def fixed(value: float | None, digits: int = 3) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:.{digits}f}"


def short(value: float) -> str:
    """Return three significant digits."""
    if math.isnan(value):
        return NONE
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 or math.isinf(value) else f"{value:.2e}"


def rate(value: float) -> str:
    """Return a learning rate: ``3.10e-3``."""
    if math.isnan(value):
        return NONE
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def thousands(tokens: int) -> str:
    """Return ``950``, ``12k``, ``1.2M``, ``3.4B``."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            shown = tokens / size
            return f"{shown:.1f}{unit}" if shown < 9.95 else f"{shown:.0f}{unit}"
    return str(tokens)


def percent(share: float) -> str:
    """Return two significant digits at least: ``0.012``, ``1.4``, ``31.2``."""
    value = 100 * share
    return f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2g}"


def time_left(status: Status) -> str:
    """Return how long a stage still takes, after its first steps."""
    rest = max(0, status.budget - status.tokens)
    speed = f" at {count(status.speed.tokens_per_second)} tokens/s" if status.speed else ""
    return f"{status.title}: about {clock(status.left)} left, for {thousands(rest)} tokens{speed}"


def step_line(status: Status) -> str:
    """Return the line of a step for output without a terminal."""
    parts = [
        f"{status.title}: {status.share:.0%}",
        f"step {status.step:,}",
        f"epoch {status.epoch}",
        f"loss (smoothed) {fixed(status.smoothed.value)}",
        f"learning rate {rate(status.learning_rate)}",
        f"grad norm {short(status.grad_norm)}",
    ]
    speed = status.speed
    if speed:
        supervised = count(speed.supervised_tokens_per_second)
        parts.append(f"{count(speed.tokens_per_second)} tokens/s ({supervised} supervised)")
        parts.append(f"MFU {percent(speed.mfu)}%")
        parts.append(f"HFU {percent(speed.hfu)}%")
    parts.append(f"memory {status.memory}")
    parts.append(f"{clock(status.left)} left")
    return ", ".join(parts)


def validation_line(status: Status, record: ValidationRecord) -> str:
    """Return the line of a validation."""
    measured, best = record.measured, " (best)"
    if measured.pairs:
        return f"{status.title}: step {status.step:,}, {pairs_text(measured, status, best=record.best)}"
    if not record.best:
        best = f" (best {fixed(status.best)})"
    text = f"{status.title}: step {status.step:,}, validation loss {fixed(measured.loss)}{best}"
    text += f", perplexity {short(record.perplexity or math.nan)}"
    if measured.phases:
        text += "; " + ", ".join(f"{name} {fixed(value)}" for name, value in measured.phases.items())
    return text


def pairs_text(measured: Measured, status: Status, *, best: bool) -> str:
    """Return what a validation says of pairs of answers."""
    pairs = measured.pairs
    right = f"{pairs['accuracy']:.1%} of {pairs['pairs']:,} pairs ranked rightly"
    if best:
        right += " (best)"
    elif status.best_accuracy is not None:
        right += f" (best {status.best_accuracy:.1%})"
    margin = f"margin {short(pairs['margin'])}"
    lengths = f"a token of the chosen answers {fixed(pairs['chosen'])} nats, of the rejected {fixed(pairs['rejected'])}"
    return f"{right}, validation loss {fixed(measured.loss)}, {margin}; log-probability of {lengths}"
