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
    """Bytes beyond what was held when the trace began, at the moment when they were most; ``by_component`` are those
    allocated since then and still alive."""

    bytes: int
    microseconds: float
    by_component: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "microseconds": self.microseconds, "by_component": self.by_component}


def peak_of(trace: Trace) -> Peak:
    """On the GPU where there is one, else in the host's memory."""
    most, place = 0, -1
    for number, (_, live) in enumerate(_live(trace)):
        if live > most:
            most, place = live, number
    alive: dict[int, Allocation] = {}
    at = 0.0
    for number, (allocation, _) in enumerate(_live(trace)):
        if number > place:
            break
        at = allocation.time
        if allocation.bytes > 0:
            alive[allocation.address] = allocation
        else:
            alive.pop(allocation.address, None)
    found: dict[str, int] = {}
    for allocation in alive.values():
        name = _owner(allocation)
        found[name] = found.get(name, 0) + allocation.bytes
    return Peak(most, at, dict(sorted(found.items(), key=lambda item: -item[1])))


def write_timeline(trace: Trace, path: Path) -> None:
    """One JSON line an allocation or release: when, how many bytes, how many are alive then, and who did it."""
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
    """Allocations and releases in order, with the bytes alive after each."""
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
