"""The time of training by component: each moment of a step belongs to exactly one, so that they add up to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cbtrain.training.profiling.ranges import COMPONENTS
from cbtrain.training.profiling.trace import Kernel, Trace

PHASES = ("forward", "backward", "recomputed", "")
IDLE = "GPU idle"

Times = dict[tuple[str, str], float]
"""Seconds by component and pass."""


@dataclass(slots=True)
class Breakdown:
    """Seconds of ``steps`` steps. ``on_gpu`` says whose time it is: a GPU's, or that of the thread that trains."""

    steps: int
    seconds: float
    on_gpu: bool
    times: Times = field(default_factory=dict)

    def of(self, component: str, phase: str | None = None) -> float:
        """Seconds of ``component``, in one pass or in all."""
        phases = PHASES if phase is None else (phase,)
        return sum(self.times.get((component, each), 0.0) for each in phases)

    @property
    def components(self) -> list[str]:
        """In the order of a step, and only what has taken time or is always asked for."""
        return [*COMPONENTS, *([IDLE] if self.on_gpu else [])]

    def as_dict(self) -> dict[str, Any]:
        return {
            component: {
                **{phase or "neither": self.of(component, phase) for phase in PHASES},
                "seconds": self.of(component),
                "share": self.of(component) / max(self.seconds, 1e-12),
            }
            for component in self.components
        }


def break_down(trace: Trace) -> Breakdown:
    """By the GPU's time where there was one, else by the host's."""
    return by_device(trace) if trace.kernels else by_host(trace)


def by_host(trace: Trace) -> Breakdown:
    """Each moment belongs to the innermost call in which the training thread is."""
    steps = trace.steps
    breakdown = Breakdown(len(steps), sum(step.end - step.begin for step in steps) / 1e6, on_gpu=False)
    for call in trace.calls:
        if call.step is not None:
            _add(breakdown.times, call.component, call.phase, call.own)
    return breakdown


def by_device(trace: Trace) -> Breakdown:
    """Each moment belongs to the kernel that runs; communication counts where nothing else runs beside it. What is left
    is input wait, as the host saw it (a step ends with a wait for the GPU), and :data:`IDLE`."""
    host = by_host(trace)
    breakdown = Breakdown(host.steps, host.seconds, on_gpu=True)
    kernels = sorted((k for k in trace.kernels if k.call.step is not None or k.call.phase), key=lambda k: k.begin)
    busy: list[tuple[float, float]] = []
    for communication in (False, True):
        chosen = [kernel for kernel in kernels if kernel.communication is communication]
        for kernel, exclusive in _exclusive_times(chosen, busy):
            component = "communication" if communication else kernel.call.component
            _add(breakdown.times, component, kernel.call.phase, exclusive)
        busy = _merged([*busy, *((kernel.begin, kernel.end) for kernel in chosen)])
    waited = host.of("input wait")
    rest = breakdown.seconds - sum(end - begin for begin, end in busy) / 1e6
    breakdown.times["input wait", ""] = min(waited, max(0.0, rest))
    breakdown.times[IDLE, ""] = max(0.0, rest - waited)
    return breakdown


def _add(times: Times, component: str, phase: str, microseconds: float) -> None:
    key = (component, phase)
    times[key] = times.get(key, 0.0) + microseconds / 1e6


def _exclusive_times(kernels: Sequence[Kernel], busy: Sequence[tuple[float, float]]) -> list[tuple[Kernel, float]]:
    """Return each of ``kernels``, which are sorted by beginning, with the microseconds in which neither an earlier
    kernel nor one of the intervals ``busy`` (disjoint and sorted) runs."""
    times = []
    earlier_end = float("-inf")
    first_busy = 0
    for kernel in kernels:
        begin, exclusive = max(kernel.begin, earlier_end), 0.0
        earlier_end = max(earlier_end, kernel.end)
        while first_busy < len(busy) and busy[first_busy][1] <= begin:
            first_busy += 1
        next_busy = first_busy
        while begin < kernel.end:
            busy_begin, busy_end = busy[next_busy] if next_busy < len(busy) else (kernel.end, kernel.end)
            exclusive += max(0.0, min(busy_begin, kernel.end) - begin)
            begin = max(begin, busy_end)
            next_busy += 1
        times.append((kernel, exclusive))
    return times


def _merged(stretches: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(stretches):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
