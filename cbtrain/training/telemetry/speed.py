"""Speed of training: over the last steps for the display, over the whole run for its summary."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from cbtrain.training.flops import Flops
from cbtrain.training.telemetry.peak import Peak

STEPS = 20
SECONDS = 10.0
"""The window of a shown speed: the last 20 steps, or all of the last 10 seconds where these are more."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One optimizer step, all ranks together. ``seconds`` and ``wait`` (for input) are its own."""

    seconds: float
    tokens: int
    supervised: int
    flops: Flops
    wait: float

    def __add__(self, other: Sample) -> Sample:
        return self._with(other, 1)

    def __sub__(self, other: Sample) -> Sample:
        return self._with(other, -1)

    def _with(self, other: Sample, sign: int) -> Sample:
        return Sample(
            self.seconds + sign * other.seconds,
            self.tokens + sign * other.tokens,
            self.supervised + sign * other.supervised,
            Flops(self.flops.model + sign * other.flops.model, self.flops.hardware + sign * other.flops.hardware),
            self.wait + sign * other.wait,
        )


NOTHING = Sample(0.0, 0, 0, Flops(0.0, 0.0), 0.0)


@dataclass(frozen=True, slots=True)
class Speed:
    """Rates over some steps. ``mfu`` and ``hfu`` are shares of the peak of all devices, ``input_wait`` one of time."""

    tokens_per_second: float
    supervised_tokens_per_second: float
    mfu: float
    hfu: float
    input_wait: float


@dataclass(slots=True)
class Speedometer:
    """Takes a sample a step. ``devices`` share the work, each with ``peak``."""

    peak: Peak
    devices: int = 1
    first: Sample | None = None
    durations: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    _marks: deque[Sample] = field(default_factory=lambda: deque([NOTHING]))

    def add(self, sample: Sample) -> Speed:
        """Take the next step; returns the speed over the window that ends with it."""
        marks = self._marks
        if self.first is None:
            self.first = sample
        else:
            if not self.rates:  # the first step warms up, and counts only while it is the only one
                self._marks = marks = deque([NOTHING])
            self.durations.append(sample.seconds)
            self.rates.append(sample.tokens / max(sample.seconds, 1e-9))
        # Sums since the warm-up: the window is the difference of two of them.
        marks.append(marks[-1] + sample)
        while len(marks) - 1 > STEPS and marks[-1].seconds - marks[1].seconds >= SECONDS:
            marks.popleft()
        return self._speed(marks[-1] - marks[0])

    def summary(self) -> dict[str, Any]:
        """Return speeds over all steps but the first, which warms up (it counts if it is the only one), and the spread
        of single steps."""
        if self.first is None:
            return {"peak": self.peak.name, "warm_up_steps": 0, "measured_steps": 0}
        alone = not self.durations
        speed = self._speed(self._marks[-1])
        durations = [self.first.seconds] if alone else self.durations
        rates = [self.first.tokens / max(self.first.seconds, 1e-9)] if alone else self.rates
        return {
            "tokens_per_second": round(speed.tokens_per_second, 1),
            "supervised_tokens_per_second": round(speed.supervised_tokens_per_second, 1),
            "mfu": round(speed.mfu, 4),
            "hfu": round(speed.hfu, 4),
            "peak": self.peak.name,
            "input_wait_share": round(speed.input_wait, 4),
            "warm_up_steps": 0 if alone else 1,
            "measured_steps": len(durations),
            "median_tokens_per_second": round(statistics.median(rates), 1),
            "step_seconds": {name: round(value, 4) for name, value in _spread(durations).items()},
        }

    def _speed(self, over: Sample) -> Speed:
        seconds = max(over.seconds, 1e-9)
        possible = seconds * self.peak.flops * self.devices
        return Speed(
            over.tokens / seconds,
            over.supervised / seconds,
            over.flops.model / possible,
            over.flops.hardware / possible,
            over.wait / seconds,
        )


def _spread(values: list[float]) -> dict[str, float]:
    if len(values) == 1:
        return {"median": values[0]}
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"lower_quartile": low, "median": middle, "upper_quartile": high}
