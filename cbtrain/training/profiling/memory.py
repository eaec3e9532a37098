"""The memory that training takes while it is profiled: how much is alive at each moment, and who has allocated it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbtrain.training.profiling.trace import Allocation, Trace


@dataclass(frozen=True, slots=True)
class Peak:
    """Peak in bytes beyond the memory in use when the trace began; ``by_component`` splits the allocations since then
    that are alive at the peak."""

    bytes: int
    microseconds: float
    by_component: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "microseconds": self.microseconds, "by_component": self.by_component}


def peak_of(trace: Trace) -> Peak:
    """Return the peak of the GPU's memory if there is a GPU, else of the host's."""
    peak, peak_number = 0, -1
    for number, (_, live) in enumerate(_live(trace)):
        if live > peak:
            peak, peak_number = live, number
    alive: dict[int, Allocation] = {}
    time = 0.0
    for number, (allocation, _) in enumerate(_live(trace)):
        if number > peak_number:
            break
        time = allocation.time
        if allocation.bytes > 0:
            alive[allocation.address] = allocation
        else:
            alive.pop(allocation.address, None)
    by_component: dict[str, int] = {}
    for allocation in alive.values():
        name = _owner(allocation)
        by_component[name] = by_component.get(name, 0) + allocation.bytes
    return Peak(peak, time, dict(sorted(by_component.items(), key=lambda item: -item[1])))


def write_timeline(trace: Trace, path: Path) -> None:
    """Write one JSON line per allocation or release: time, bytes, bytes alive after it, and the component."""
    with path.open("w", encoding="utf-8") as file:
        for allocation, live in _live(trace):
            call = allocation.call
            record = {
                "us": round(allocation.time, 3),
                "bytes": allocation.bytes,
                "live": live,
                "component": call.component if call else None,
                "pass": call.phase if call else None,
                "in": call.name if call else None,
            }
            file.write(json.dumps(record) + "\n")


def _live(trace: Trace) -> Iterator[tuple[Allocation, int]]:
    """Yield allocations and releases in order, with the bytes alive after each."""
    on_gpu = any(allocation.on_gpu for allocation in trace.allocations)
    live = 0
    for allocation in sorted(trace.allocations, key=lambda allocation: allocation.time):
        if allocation.on_gpu is on_gpu:
            live += allocation.bytes
            yield allocation, live


def _owner(allocation: Allocation) -> str:
    call = allocation.call
    if call is None:
        return "other"
    return f"{call.component}, {call.phase}" if call.phase else call.component
